//! Panics of tasks: caught, and told with the place where they happened.

use std::any::Any;
use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind};
use std::sync::Once;

thread_local! {
    /// Set while this thread carries out a task; then the place of its panic.
    static PLACE: RefCell<Option<String>> = const { RefCell::new(None) };
}

static HOOK: Once = Once::new();

/// Does something that may panic; a panic is an error with its message and its place.
pub(super) fn caught<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    HOOK.call_once(|| {
        let former = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if !note(info) {
                former(info);
            }
        }));
    });
    PLACE.set(Some(String::new()));
    let result = catch_unwind(AssertUnwindSafe(work));
    let place = PLACE.take().unwrap_or_default();
    result.map_err(|payload| format!("panicked{place}: {}", message(&*payload)))
}

/// Notes where a task has panicked; false if no task did.
fn note(info: &PanicHookInfo<'_>) -> bool {
    PLACE.with_borrow_mut(|place| {
        let Some(place) = place else { return false };
        if let Some(at) = info.location() {
            *place = format!(" at {}:{}", at.file(), at.line());
        }
        true
    })
}

fn message(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let text = text.or_else(|| payload.downcast_ref::<String>().cloned());
    text.unwrap_or_else(|| "no message".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_told_with_its_message_and_place() {
        assert_eq!(caught(|| 7), Ok(7));
        let error = caught(|| panic!("over {}", "there")).unwrap_err();
        assert!(error.starts_with("panicked at src/task/panics.rs:"), "{error}");
        assert!(error.ends_with(": over there"), "{error}");
    }
}
