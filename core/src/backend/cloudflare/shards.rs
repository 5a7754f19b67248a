//! Which of the objects has a session, and how a question to several of them is split.

use super::link::Shard;
use crate::session::SessionId;

/// The object of a session; a log is where its scope is.
///
/// FNV-1a: spreads ids that differ in a digit, and is the same in every language.
pub(super) fn shard_of(session: &SessionId, shards: usize) -> Shard {
    let text = session.as_log().map_or(session.as_str(), |(scope, _)| scope);
    let hash =
        text.bytes().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    u8::try_from(hash as usize % shards).unwrap_or(0)
}

/// Every object.
pub(super) fn all(shards: usize) -> impl Iterator<Item = Shard> {
    (0..=Shard::MAX).take(shards)
}

/// What goes to one object, and where each part of it stood.
pub(super) struct Part<T> {
    pub(super) shard: Shard,
    pub(super) places: Vec<usize>,
    pub(super) items: Vec<T>,
}

/// A question in parts, one an object, each in the order in which it was put together.
pub(super) struct Parts<T>(Vec<Part<T>>);

impl<T> Parts<T> {
    pub(super) fn new() -> Self {
        Parts(Vec::new())
    }

    pub(super) fn push(&mut self, shard: Shard, place: usize, item: T) {
        let at = self.0.iter().position(|part| part.shard == shard).unwrap_or_else(|| {
            self.0.push(Part { shard, places: Vec::new(), items: Vec::new() });
            self.0.len() - 1
        });
        let part = &mut self.0[at];
        part.places.push(place);
        part.items.push(item);
    }

    pub(super) fn into_iter(self) -> impl Iterator<Item = Part<T>> {
        self.0.into_iter()
    }
}

/// Items by the objects of their sessions.
pub(super) fn split<'a, I, T>(
    items: &'a [I],
    shards: usize,
    session: impl Fn(&'a I) -> &'a SessionId,
    make: impl Fn(&'a I) -> T,
) -> Parts<T> {
    let mut parts = Parts::new();
    for (place, item) in items.iter().enumerate() {
        parts.push(shard_of(session(item), shards), place, make(item));
    }
    parts
}

/// Answers to the parts of a question, each back in the place of what it answers.
pub(super) struct Answers<T>(Vec<Option<T>>);

impl<T> Answers<T> {
    pub(super) fn new(count: usize) -> Self {
        Answers((0..count).map(|_| None).collect())
    }

    /// False when there is not one answer each.
    pub(super) fn put(&mut self, places: &[usize], answers: Vec<T>) -> bool {
        let all = places.len() == answers.len();
        for (place, answer) in places.iter().zip(answers) {
            self.0[*place] = Some(answer);
        }
        all
    }

    /// One for each; `None` when any is missing.
    pub(super) fn whole(self) -> Option<Vec<T>> {
        self.0.into_iter().collect()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn id(text: &str) -> SessionId {
        SessionId::new(text).unwrap()
    }

    #[test]
    fn every_language_finds_the_same_object() {
        // As the Worker of the package has it.
        for (text, shard) in [("s1", 1), ("s2", 0), ("0123456789abcdef", 5), ("~!", 0)] {
            assert_eq!(shard_of(&id(text), 8), shard, "{text}");
        }
        assert_eq!(shard_of(&id("s1"), 1), 0);
    }

    #[test]
    fn a_log_is_where_its_scope_is() {
        for n in 0..64 {
            let scope = id(&format!("scope{n}"));
            assert_eq!(shard_of(&SessionId::of_log(&scope, "X0dFVF9zdHJlYW0"), 8), shard_of(&scope, 8));
        }
    }

    #[test]
    fn what_is_split_comes_back_in_order() {
        let items: Vec<_> = (0..100).map(|n| id(&format!("s{n}"))).collect();
        let mut answers = Answers::new(items.len());
        let parts = split(&items, 8, |it| it, SessionId::clone);
        let mut count = 0;
        for part in parts.into_iter() {
            assert!(part.items.iter().all(|it| shard_of(it, 8) == part.shard));
            assert!(part.places.is_sorted());
            assert!(answers.put(&part.places, part.items));
            count += 1;
        }
        assert_eq!((count, answers.whole()), (8, Some(items)));
    }
}
