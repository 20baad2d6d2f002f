//! Masks secrets in the output of a run, even where a long line is cut or is not yet finished.

/// What replaces a secret.
const MASK: &str = "***";
/// Characters that a secret, or a line of one, needs to be masked. A shorter one would occur in ordinary words.
const MASKED_CHARS_MIN: usize = 4;

/// The secrets of a run.
#[derive(Debug, Default)]
pub(super) struct Mask {
    /// Longest first, since one may be part of another.
    secrets: Vec<String>,
}

impl Mask {
    /// Adds secrets. The lines of a multi-line secret are masked one by one, since output is masked line by line.
    pub(super) fn hide(&mut self, secrets: impl IntoIterator<Item = String>) {
        for secret in secrets {
            let lines = secret.lines().map(str::trim);
            let lines = lines.filter(|line| line.chars().count() >= MASKED_CHARS_MIN);
            self.secrets.extend(lines.map(str::to_owned));
        }
        self.secrets.sort_by(|one, other| other.len().cmp(&one.len()).then_with(|| one.cmp(other)));
        self.secrets.dedup();
    }

    /// The text with all secrets masked.
    pub(super) fn apply(&self, text: String) -> String {
        self.secrets.iter().fold(text, |text, secret| {
            if text.contains(secret.as_str()) { text.replace(secret.as_str(), MASK) } else { text }
        })
    }

    /// Bytes of the longest secret.
    pub(super) fn longest(&self) -> usize {
        self.secrets.first().map_or(0, String::len)
    }

    /// Where to cut a line that is longer than `limit`: never within a character or a secret. An unfinished line must have
    /// [`Mask::longest`] bytes beyond the limit.
    pub(super) fn cut(&self, line: &[u8], limit: usize) -> usize {
        let is_within = |at: usize| line.get(at).is_some_and(|byte| byte & 0xc0 == 0x80);
        let begins = (0..4).map(|back| limit.saturating_sub(back)).find(|at| !is_within(*at));
        let (mut at, mut end) = (begins.unwrap_or(limit), limit);
        while let Some((begin, after)) = self.crossing(line, at) {
            end = end.max(after);
            if begin == 0 {
                // The line begins with a secret that is longer than the limit.
                return end;
            }
            at = begin;
        }
        at
    }

    /// Begin and end of a secret that a cut at `at` would split.
    fn crossing(&self, line: &[u8], at: usize) -> Option<(usize, usize)> {
        self.secrets.iter().find_map(|secret| {
            let secret = secret.as_bytes();
            let from = at.saturating_sub(secret.len() - 1);
            let near = line.get(from..line.len().min(at + secret.len() - 1))?;
            let found = near.windows(secret.len()).position(|window| window == secret)?;
            Some((from + found, from + found + secret.len()))
        })
    }

    /// The part of an unfinished line that can be shown, without an end that may be the beginning of a secret.
    pub(super) fn settled<'a>(&self, line: &'a [u8]) -> &'a [u8] {
        let longest = self.longest().saturating_sub(1).min(line.len());
        let may_begin = |length: &usize| {
            let end = line.get(line.len() - length..).unwrap_or_default();
            self.secrets.iter().any(|secret| secret.as_bytes().starts_with(end))
        };
        let open = (1..=longest).rev().find(may_begin).unwrap_or(0);
        line.get(..line.len() - open).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mask(secrets: &[&str]) -> Mask {
        let mut mask = Mask::default();
        mask.hide(secrets.iter().map(|secret| (*secret).to_owned()));
        mask
    }

    #[test]
    fn short_lines_of_a_secret_are_not_masked() {
        let mask = mask(&["e", "key\n  swordfish\n}\n", "äöü"]);
        assert_eq!(mask.apply("the key of the swordfish {}".to_owned()), "the key of the *** {}");
        assert_eq!(mask.longest(), 9);
    }

    #[test]
    fn a_line_is_cut_beside_a_secret_and_never_within_a_character() {
        let mask = mask(&["swordfish", "fishbowl"]);
        assert_eq!(mask.cut(b"the word is swordfish, is it not", 8), 8);
        for limit in 13..21 {
            assert_eq!(mask.cut(b"the word is swordfish, is it not", limit), 12, "{limit}");
        }
        assert_eq!(
            mask.cut(b"a swordfishbowl and more words", 12),
            2,
            "one secret begins in another"
        );
        assert_eq!(mask.cut(b"swordfish and more words", 4), 9);
        assert_eq!(mask.cut("aü and so on".as_bytes(), 2), 1);
    }

    #[test]
    fn the_beginning_of_a_secret_is_not_shown_before_the_rest_is_known() {
        let mask = mask(&["swordfish"]);
        assert_eq!(mask.settled(b"it is swordf"), b"it is ");
        assert_eq!(mask.settled(b"it is swords"), b"it is sword");
        assert_eq!(mask.settled(b"it is all"), b"it is all");
        assert_eq!(Mask::default().settled(b"swordf"), b"swordf");
    }
}
