//! What becomes of a submission that has several parts, each with an outcome of its own: one to a list,
//! or one to every lane.

use crate::backend::Acceptance;
use crate::error::{Error, Result};

/// The sum of a submission's parts.
#[derive(Default)]
pub(super) struct Sum {
    counted: Acceptance,
    failed: Option<Error>,
    /// Its parts are the same event in several places.
    once: bool,
}

impl Sum {
    /// One for each submission of a batch.
    pub(super) fn each(count: usize) -> Vec<Self> {
        (0..count).map(|_| Sum::default()).collect()
    }

    /// Counts a part.
    pub(super) fn add(&mut self, part: Acceptance) {
        self.counted.accepted += part.accepted;
        self.counted.dropped += part.dropped;
        self.counted.duplicates += part.duplicates;
    }

    /// Counts as one, and is new where any of its parts was.
    #[cfg(any(feature = "cloudflare", test))]
    pub(super) fn count_once(&mut self) {
        self.once = true;
    }

    /// A part failed. One that may have happened outweighs one that did not.
    pub(super) fn fail(&mut self, error: Error) {
        if self.failed.as_ref().is_none_or(|known| !known.outcome_unknown()) {
            self.failed = Some(error);
        }
    }

    /// An outcome a submission.
    pub(super) fn outcomes(sums: Vec<Self>) -> Vec<Result<Acceptance>> {
        sums.into_iter().map(Sum::outcome).collect()
    }

    /// Nothing happened only if no part did: whoever is told so sends all of it again (G5).
    fn outcome(self) -> Result<Acceptance> {
        let any = self.counted.accepted + self.counted.duplicates > 0;
        match self.failed {
            None if !self.once => Ok(self.counted),
            None if self.counted.accepted > 0 => Ok(Acceptance { accepted: 1, ..Acceptance::default() }),
            None => Ok(Acceptance { duplicates: 1, ..Acceptance::default() }),
            Some(error) if any => Err(error.with_unknown_outcome()),
            Some(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    fn part(letter: u8) -> Acceptance {
        let mut part = Acceptance::default();
        match letter {
            b'a' => part.accepted = 1,
            b'd' => part.duplicates = 1,
            _ => part.dropped = 1,
        }
        part
    }

    fn sum(letters: &str, errors: &[fn() -> Error]) -> Result<Acceptance> {
        // In whatever order the parts are known.
        let all = [true, false].map(|letters_first| {
            let mut sum = Sum::default();
            let count = |sum: &mut Sum| letters.bytes().for_each(|letter| sum.add(part(letter)));
            if letters_first {
                count(&mut sum);
            }
            errors.iter().for_each(|error| sum.fail(error()));
            if !letters_first {
                count(&mut sum);
            }
            sum.outcome()
        });
        let [one, other] = all;
        let told = |outcome: &Result<Acceptance>| match outcome {
            Ok(acceptance) => (Some(*acceptance), false),
            Err(error) => (None, error.outcome_unknown()),
        };
        assert_eq!(told(&one), told(&other));
        one
    }

    #[test]
    fn parts_are_counted() {
        let all = Acceptance { accepted: 2, dropped: 1, duplicates: 1 };
        assert_eq!(sum("axda", &[]).unwrap(), all);
    }

    #[test]
    fn the_same_event_in_several_places_counts_once() {
        for (letters, accepted) in [("aaa", 1), ("ada", 1), ("dda", 1), ("ddd", 0)] {
            let mut sum = Sum::default();
            sum.count_once();
            letters.bytes().for_each(|letter| sum.add(part(letter)));
            let counted = Acceptance { accepted, dropped: 0, duplicates: 1 - accepted };
            assert_eq!(sum.outcome().unwrap(), counted, "{letters}");
        }
    }

    #[test]
    fn nothing_happened_only_if_no_part_did() {
        let down: fn() -> Error = || Error::new(ErrorKind::Unavailable, "test", "down");
        let lost: fn() -> Error =
            || Error::new(ErrorKind::Unavailable, "test", "down").with_unknown_outcome();
        for (letters, errors, unknown) in [
            ("", &[down, down][..], false),
            ("xx", &[down], false),
            ("a", &[down], true),
            ("d", &[down], true),
            ("x", &[lost], true),
            ("", &[lost, down], true),
            ("", &[down, lost], true),
        ] {
            assert_eq!(sum(letters, errors).unwrap_err().outcome_unknown(), unknown, "{letters} {unknown}");
        }
    }
}
