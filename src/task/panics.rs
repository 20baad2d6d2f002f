//! Catches the panics of builtins, with their message and source location.

use std::any::Any;
use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind};
use std::sync::Once;

thread_local! {
    /// Set while this thread runs a builtin: empty, and then the source location of its panic.
    static LOCATION: RefCell<Option<String>> = const { RefCell::new(None) };
}

static HOOK: Once = Once::new();

/// Runs code that may panic. A panic becomes an error with its message and source location, and is not printed.
pub(super) fn catch<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    HOOK.call_once(|| {
        let former = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if !store_location(info) {
                former(info);
            }
        }));
    });
    LOCATION.set(Some(String::new()));
    let result = catch_unwind(AssertUnwindSafe(work));
    let location = LOCATION.take().unwrap_or_default();
    result.map_err(|payload| format!("panicked{location}: {}", message(&*payload)))
}

/// Stores the location of a panic; false if the thread was not running a builtin.
fn store_location(info: &PanicHookInfo<'_>) -> bool {
    LOCATION.with_borrow_mut(|location| {
        let Some(location) = location else { return false };
        if let Some(at) = info.location() {
            *location = format!(" at {}:{}", at.file(), at.line());
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
    fn the_error_of_a_panic_has_its_message_and_location() {
        assert_eq!(catch(|| 7), Ok(7));
        let error = catch(|| panic!("over {}", "there")).unwrap_err();
        assert!(error.starts_with("panicked at src/task/panics.rs:"), "{error}");
        assert!(error.ends_with(": over there"), "{error}");
    }
}
