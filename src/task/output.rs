//! The tail of what a run has written: bounded, whatever the run does.

/// Bytes of output kept for a run. Enough for a stack trace and what led to it.
pub const OUTPUT_TAIL_BYTES: usize = 64 * 1024;

/// The last [`OUTPUT_TAIL_BYTES`] of an output.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tail {
    bytes: Vec<u8>,
    total: u64,
}

impl Tail {
    /// Appends bytes; the oldest go when the bound is passed.
    pub fn push(&mut self, bytes: &[u8]) {
        self.total = self.total.saturating_add(u64::try_from(bytes.len()).unwrap_or(u64::MAX));
        self.bytes.extend_from_slice(bytes);
        // Cut only now and then, so that a long output is not moved at every write.
        if self.bytes.len() > 2 * OUTPUT_TAIL_BYTES {
            self.cut();
        }
    }

    /// Bytes that were written in all, of which the tail may be the smaller part.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// Whether nothing was written.
    pub fn is_empty(&self) -> bool {
        self.total == 0
    }

    /// The tail as text; what is not UTF-8 is replaced.
    pub fn into_text(mut self) -> String {
        self.cut();
        String::from_utf8_lossy(&self.bytes).into_owned()
    }

    fn cut(&mut self) {
        let excess = self.bytes.len().saturating_sub(OUTPUT_TAIL_BYTES);
        self.bytes.drain(..excess);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tail_keeps_the_end_and_counts_all() {
        let mut tail = Tail::default();
        for _ in 0..50 {
            tail.push(&[b'x'; 10_000]);
        }
        tail.push(b"the end");
        assert_eq!(tail.total(), 500_007);
        let text = tail.into_text();
        assert_eq!(text.len(), OUTPUT_TAIL_BYTES);
        assert!(text.ends_with("the end"));
    }
}
