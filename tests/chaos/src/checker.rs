//! Compares what was accepted with what clients got.
//!
//! | rule | what must hold of each session |
//! |---|---|
//! | own (G12) | nothing comes that was not sent to it |
//! | once (G2, G5) | nothing comes twice, whatever was retried |
//! | nothing (G5) | what failed with nothing done does not come |
//! | order (G1) | what was accepted before something else was sent comes before it: within its own events, within the broadcasts, and between both of one sender |
//! | whole (G2, G3, G9) | what was accepted comes, or a gap is told where it is missing |
//! | one holder (G6) | once a newer stream is open, an older one brings nothing that was sent since; and of one whose opening nobody waited for, which may be the newer one, that not both bring what is sent |
//!
//! Once and order begin anew where a gap is told: nobody knows there what the client has, and it gets
//! what the log holds.

use std::collections::{HashMap, HashSet};

use crate::history::{AllSeen, History, Loss, Outcome, Seen, Sent};

/// What is wrong, in the words of the table, and about what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    pub rule: &'static str,
    pub session: String,
    pub what: String,
}

impl std::fmt::Display for Violation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: session {}: {}", self.rule, self.session, self.what)
    }
}

/// Counts of what was judged: a verdict on nothing is none.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Judged {
    pub sessions: usize,
    pub sent: usize,
    pub accepted: usize,
    pub unknown: usize,
    pub received: usize,
    pub streams: usize,
    pub gaps: usize,
    /// Accepted, missing, and told to be.
    pub excused: usize,
    /// Brought by streams whose opening nobody waited for any more.
    pub late: usize,
}

/// One session as its client saw it.
struct Session<'h> {
    name: &'h str,
    /// What counts for the client, in order, and when it came.
    got: Vec<(u64, &'h Sent)>,
    gaps: Vec<u64>,
    known_since: Option<u64>,
}

/// Everything that is wrong with a history; with `merged`, the order between directed events and
/// broadcasts of one sender counts, too.
pub fn check(history: &History, merged: bool) -> (Vec<Violation>, Judged) {
    judge_as(&history.all_sent(), &history.all_seen(), &history.all_losses(), merged)
}

pub fn judge(sent: &[Sent], seen: &AllSeen) -> (Vec<Violation>, Judged) {
    judge_as(sent, seen, &[], true)
}

fn judge_as(sent: &[Sent], seen: &AllSeen, losses: &[Loss], merged: bool) -> (Vec<Violation>, Judged) {
    let by_payload: HashMap<&str, &Sent> = sent.iter().map(|sent| (sent.payload.as_str(), sent)).collect();
    let count = |outcome| sent.iter().filter(|sent| sent.outcome == outcome).count();
    let mut judged = Judged {
        sessions: seen.len(),
        sent: sent.len(),
        accepted: count(Outcome::Accepted),
        unknown: count(Outcome::Unknown),
        ..Judged::default()
    };
    let mut violations = Vec::new();
    for (name, list) in seen {
        let session = follow(name, list, &by_payload, &mut violations, &mut judged);
        once(&session, &mut violations);
        order(&session, merged, &mut violations);
        judged.excused += whole(&session, sent, losses, &mut violations);
        judged.received += session.got.len();
        judged.gaps += session.gaps.len();
    }
    (violations, judged)
}

/// Sorts what counts from what a stream said that the client had left.
fn follow<'h>(
    name: &'h str,
    list: &'h [(u64, Seen)],
    by_payload: &HashMap<&str, &'h Sent>,
    violations: &mut Vec<Violation>,
    judged: &mut Judged,
) -> Session<'h> {
    let mut session = Session { name, got: Vec::new(), gaps: Vec::new(), known_since: None };
    let (mut current, mut opened_at) = (None, 0);
    let mut opened = HashSet::new();
    // Since when a stream brings events whose opening the client had given up: its claim may have been
    // made at any time, so also after that of the stream that the client has.
    let mut late: Option<u64> = None;
    for (at, seen) in list {
        match seen {
            Seen::Opened { stream, gap } => {
                (current, opened_at, late) = (Some(*stream), *at, None);
                opened.insert(*stream);
                session.known_since.get_or_insert(*at);
                session.gaps.extend(gap.then_some(*at));
                judged.streams += 1;
            }
            Seen::Left { stream } if current == Some(*stream) => current = None,
            Seen::Ended { stream, reason } if current == Some(*stream) => {
                current = None;
                session.gaps.extend((reason == "gap").then_some(*at));
            }
            Seen::Left { .. } | Seen::Ended { .. } => {}
            Seen::Got { stream, payload } => {
                let wrong = |rule, what| Violation { rule, session: name.to_owned(), what };
                let Some(sent) = by_payload.get(payload.as_str()).filter(|sent| sent.to.reaches(name)) else {
                    violations.push(wrong("own", format!("{payload} was not sent to it")));
                    continue;
                };
                if sent.outcome == Outcome::Nothing {
                    violations.push(wrong("nothing", format!("{payload} came although it failed")));
                }
                if current == Some(*stream) {
                    session.got.push((*at, sent));
                    if late.is_some_and(|late| sent.start > late) {
                        let what = format!("{} came on stream {stream} after another took over", told(sent));
                        violations.push(wrong("one holder", what));
                    }
                } else if current.is_some() && sent.start > opened_at {
                    if opened.contains(stream) {
                        let what =
                            format!("{} came on stream {stream}, but {current:?} is its stream", told(sent));
                        violations.push(wrong("one holder", what));
                    } else {
                        late.get_or_insert(*at);
                        judged.late += 1;
                    }
                }
            }
        }
    }
    session
}

fn told(sent: &Sent) -> String {
    let kind = if sent.to.is_broadcast() { "broadcast" } else { "directed" };
    format!("{} ({kind}, {}–{})", sent.payload, sent.start, sent.end)
}

impl<'h> Session<'h> {
    /// What the client got between two gaps.
    fn stretches(&self) -> impl Iterator<Item = &[(u64, &'h Sent)]> {
        let gaps_before = |at: u64| self.gaps.iter().filter(|gap| **gap < at).count();
        self.got.chunk_by(move |one, next| gaps_before(one.0) == gaps_before(next.0))
    }
}

fn once(session: &Session<'_>, violations: &mut Vec<Violation>) {
    session.stretches().for_each(|stretch| once_in(stretch, session, violations));
}

fn once_in(stretch: &[(u64, &Sent)], session: &Session<'_>, violations: &mut Vec<Violation>) {
    let mut got = HashSet::new();
    for (_, sent) in stretch {
        if !got.insert(sent.payload.as_str()) {
            let what = format!("{} came twice", sent.payload);
            violations.push(Violation { rule: "once", session: session.name.to_owned(), what });
        }
    }
}

/// Whether the order of two events is promised.
fn comparable(one: &Sent, other: &Sent, merged: bool) -> bool {
    one.to.is_broadcast() == other.to.is_broadcast() || (merged && one.sender == other.sender)
}

fn order(session: &Session<'_>, merged: bool, violations: &mut Vec<Violation>) {
    session.stretches().for_each(|stretch| order_in(stretch, session, merged, violations));
}

fn order_in(stretch: &[(u64, &Sent)], session: &Session<'_>, merged: bool, violations: &mut Vec<Violation>) {
    // The latest start so far: of its own events, of broadcasts, of each sender.
    let mut latest: HashMap<(bool, usize), &Sent> = HashMap::new();
    for (_, sent) in stretch {
        let lines = [(false, usize::from(sent.to.is_broadcast())), (true, sent.sender)];
        for line in lines {
            if let Some(before) = latest.get(&line)
                && comparable(before, sent, merged)
                && sent.end < before.start
            {
                let what = format!("{} came after {}, which was sent later", told(sent), told(before));
                violations.push(Violation { rule: "order", session: session.name.to_owned(), what });
            }
            let last = latest.entry(line).or_insert(sent);
            if sent.start > last.start {
                *last = sent;
            }
        }
    }
}

/// Returns how many are missing where a gap was told.
fn whole(session: &Session<'_>, sent: &[Sent], losses: &[Loss], violations: &mut Vec<Violation>) -> usize {
    let Some(known_since) = session.known_since else { return 0 };
    let got: HashSet<&str> = session.got.iter().map(|(_, sent)| sent.payload.as_str()).collect();
    let mut excused = 0;
    for missing in sent {
        let wanted = missing.outcome == Outcome::Accepted
            && missing.to.reaches(session.name)
            && missing.start > known_since
            && !got.contains(missing.payload.as_str());
        if !wanted {
            continue;
        }
        if is_told(session, missing, losses) {
            excused += 1;
        } else {
            let what = format!("{} was accepted and never came, and no gap was told", told(missing));
            violations.push(Violation { rule: "whole", session: session.name.to_owned(), what });
        }
    }
    excused
}

/// Whether a gap was told between what came before a missing event and what came behind it.
fn is_told(session: &Session<'_>, missing: &Sent, losses: &[Loss]) -> bool {
    let of_its_log = |sent: &Sent| sent.to.is_broadcast() == missing.to.is_broadcast();
    let its_log = || session.got.iter().filter(|(_, sent)| of_its_log(sent));
    let before = its_log().filter(|(_, sent)| sent.start > missing.end).map(|(at, _)| *at).min();
    // A server that takes over lacks the end of the log, and goes on with it: what is before the loss
    // comes behind the gap, too.
    let lost = losses.iter().any(|loss| missing.start < loss.until && missing.end > loss.since);
    let after = match lost {
        true => Some(missing.start),
        false => its_log().filter(|(_, sent)| sent.end < missing.start).map(|(at, _)| *at).max(),
    };
    let told = after.unwrap_or(0)..before.unwrap_or(u64::MAX);
    session.gaps.iter().any(|gap| told.contains(gap))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::To;

    /// One sender's events `m1`, `m2`, …, each after the other, all to `s1`, and what its client saw.
    fn history(outcomes: &[Outcome], seen: &[Seen]) -> (Vec<Sent>, AllSeen) {
        let sent = (1..).zip(outcomes).map(|(n, outcome)| Sent {
            payload: format!("m{n}"),
            to: To::Session("s1".into()),
            sender: 0,
            start: 10 * n,
            end: 10 * n + 5,
            outcome: *outcome,
        });
        // All of it after the first open, and before anything else was seen.
        let seen = seen.iter().cloned().zip(0..).map(|(seen, n)| (if n == 0 { 1 } else { 1_000 + n }, seen));
        (sent.collect(), AllSeen::from([("s1".to_owned(), seen.collect())]))
    }

    const ACCEPTED: [Outcome; 3] = [Outcome::Accepted; 3];

    fn opened(stream: u64) -> Seen {
        Seen::Opened { stream, gap: false }
    }

    fn got(stream: u64, payload: &str) -> Seen {
        Seen::Got { stream, payload: payload.into() }
    }

    fn rules(outcomes: &[Outcome], seen: &[Seen]) -> Vec<&'static str> {
        let (sent, seen) = history(outcomes, seen);
        judge(&sent, &seen).0.into_iter().map(|violation| violation.rule).collect()
    }

    #[test]
    fn a_right_history_passes() {
        let seen = [opened(1), got(1, "m1"), got(1, "m2"), Seen::Left { stream: 1 }, opened(2), got(2, "m3")];
        let (sent, seen) = history(&ACCEPTED, &seen);
        let (violations, judged) = judge(&sent, &seen);
        assert_eq!(violations, []);
        assert_eq!((judged.accepted, judged.received, judged.streams, judged.gaps), (3, 3, 2, 0));
    }

    #[test]
    fn what_was_not_sent_to_it() {
        assert_eq!(rules(&[], &[opened(1), got(1, "x")]), ["own"]);
        let (mut sent, seen) = history(&[Outcome::Accepted], &[opened(1), got(1, "m1")]);
        sent[0].to = To::Session("s2".into());
        assert_eq!(judge(&sent, &seen).0[0].rule, "own");
    }

    #[test]
    fn twice() {
        assert_eq!(rules(&ACCEPTED[..1], &[opened(1), got(1, "m1"), got(1, "m1")]), ["once"]);
        let again = [opened(1), got(1, "m1"), Seen::Left { stream: 1 }, opened(2), got(2, "m1")];
        assert_eq!(rules(&ACCEPTED[..1], &again), ["once"]);
        assert_eq!(rules(&[Outcome::Unknown], &[opened(1), got(1, "m1"), got(1, "m1")]), ["once"]);
    }

    #[test]
    fn what_failed() {
        assert_eq!(rules(&[Outcome::Nothing], &[opened(1), got(1, "m1")]), ["nothing"]);
        assert!(rules(&[Outcome::Unknown], &[opened(1), got(1, "m1")]).is_empty());
        assert!(rules(&[Outcome::Unknown, Outcome::Nothing], &[opened(1)]).is_empty());
    }

    #[test]
    fn out_of_order() {
        assert_eq!(rules(&ACCEPTED[..2], &[opened(1), got(1, "m2"), got(1, "m1")])[0], "order");
        let (mut sent, seen) = history(&ACCEPTED[..2], &[opened(1), got(1, "m2"), got(1, "m1")]);
        // Under way at the same time: either may be first.
        sent[1].start = 1;
        assert_eq!(judge(&sent, &seen).0, []);
    }

    #[test]
    fn out_of_order_between_both_logs_of_one_sender() {
        let (mut sent, seen) = history(&ACCEPTED[..2], &[opened(1), got(1, "m2"), got(1, "m1")]);
        sent[0].to = To::All;
        assert_eq!(judge(&sent, &seen).0[0].rule, "order");
        sent[0].sender = 7;
        assert_eq!(judge(&sent, &seen).0, []);
    }

    #[test]
    fn missing() {
        assert_eq!(rules(&ACCEPTED, &[opened(1), got(1, "m1"), got(1, "m3")]), ["whole"]);
        assert_eq!(rules(&ACCEPTED, &[opened(1), got(1, "m1"), got(1, "m2")]), ["whole"]);
        assert_eq!(rules(&ACCEPTED[..1], &[opened(1)]), ["whole"]);
    }

    #[test]
    fn a_gap_excuses_only_where_it_is_told() {
        let (left, gap) = (Seen::Left { stream: 1 }, Seen::Opened { stream: 2, gap: true });
        let here = [opened(1), got(1, "m1"), left.clone(), gap.clone(), got(2, "m3")];
        assert!(rules(&ACCEPTED, &here).is_empty());
        let elsewhere = [opened(1), left, gap, got(2, "m1"), got(2, "m3")];
        assert_eq!(rules(&ACCEPTED, &elsewhere), ["whole"]);
        let (sent, seen) = history(&ACCEPTED, &elsewhere);
        let lost = [Loss { since: 19, until: 26 }];
        assert_eq!(judge_as(&sent, &seen, &lost, true).0, [], "another server took over without m2");
        let end = Seen::Ended { stream: 1, reason: "gap".into() };
        assert!(rules(&ACCEPTED, &[opened(1), got(1, "m1"), got(1, "m2"), end]).is_empty());
    }

    #[test]
    fn once_and_order_begin_anew_at_a_gap() {
        let (left, gap) = (Seen::Left { stream: 1 }, Seen::Opened { stream: 2, gap: true });
        let all = [got(1, "m1"), got(1, "m2"), left.clone(), gap.clone(), got(2, "m1"), got(2, "m2")];
        assert!(rules(&ACCEPTED[..2], &[&[opened(1)], &all[..]].concat()).is_empty());
        let twice = [opened(1), left, gap, got(2, "m1"), got(2, "m1")];
        assert_eq!(rules(&ACCEPTED[..1], &twice), ["once"]);
    }

    /// A client gave up opening stream 1 and opened stream 2; the claim of stream 1 came all the same.
    #[test]
    fn a_stream_whose_opening_nobody_waited_for() {
        let seen = |more: &[Seen]| [&[Seen::Left { stream: 1 }, opened(2)], more].concat();
        let judged = |seen: &[Seen]| {
            let (sent, mut seen) = history(&ACCEPTED, seen);
            // Open from the beginning; the rest is seen as it is sent.
            for (n, (at, _)) in seen.values_mut().flatten().enumerate() {
                *at = if n < 2 { n as u64 + 1 } else { 10 * (n as u64 - 1) + 6 };
            }
            judge(&sent, &seen)
        };
        let taken = Seen::Ended { stream: 2, reason: "replaced".into() };
        let (violations, counts) = judged(&seen(&[got(2, "m1"), got(1, "m2"), taken]));
        assert!(violations.iter().all(|violation| violation.rule != "one holder"), "{violations:?}");
        assert_eq!(counts.late, 1, "it may be the newer one");
        let (violations, _) = judged(&seen(&[got(2, "m1"), got(1, "m2"), got(2, "m3")]));
        assert!(violations.iter().any(|violation| violation.rule == "one holder"), "both bring what is sent");
    }

    #[test]
    fn an_older_stream_that_goes_on() {
        let (sent, mut seen) = history(
            &ACCEPTED[..1],
            &[opened(1), Seen::Left { stream: 1 }, opened(2), got(2, "m1"), got(1, "m1")],
        );
        // What was under way before the newer stream opened may still be on its way to the client.
        assert_eq!(judge(&sent, &seen).0, []);
        for (n, (at, _)) in seen.values_mut().flatten().enumerate() {
            *at = if n < 3 { n as u64 + 1 } else { 1_000 + n as u64 };
        }
        assert_eq!(judge(&sent, &seen).0[0].rule, "one holder");
    }
}
