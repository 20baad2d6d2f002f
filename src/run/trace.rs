//! The trace context of a run, so that the calls of its task can be found by the run's id.

/// The W3C `traceparent` of an attempt. The run is the trace, and the attempt is the span.
pub fn traceparent(run_id: &str, attempt: u32) -> String {
    let id: String = run_id.chars().filter(char::is_ascii_hexdigit).collect();
    // The span must differ for each attempt and must not be zero. It is the random half of the id plus the attempt.
    let random = id.get(16..32).and_then(|half| u64::from_str_radix(half, 16).ok());
    let span = random.unwrap_or(1).wrapping_add(u64::from(attempt));
    format!("00-{id:0>32}-{:016x}-01", span.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attempts_are_spans_and_their_run_is_the_trace() {
        let id = "01a21304-f52b-7000-8001-ce5eac4a728a";
        assert_eq!(traceparent(id, 1), "00-01a21304f52b70008001ce5eac4a728a-8001ce5eac4a728b-01");
        assert_ne!(traceparent(id, 1), traceparent(id, 2));
        assert_eq!(traceparent("x", 0).len(), 55);
    }
}
