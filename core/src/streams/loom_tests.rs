//! The local table and its streams under every interleaving (`RUSTFLAGS="--cfg loom"`).

use std::sync::Arc;

use loom::sync::atomic::{AtomicUsize, Ordering};
use loom::thread;

use crate::backend::Lane;
use crate::backend::{LogEntry, Tail};
use crate::options::QueueLimits;
use crate::runtime::SharedManualClock;
use crate::session::SessionId;
use crate::streams::event::{EndReason, EventKind, Payload, Position, Positions};
use crate::streams::gate::{Gate, Lease};
use crate::streams::local::{Incoming, LocalStream, Outcome, Reader};
use crate::streams::mailbox::{MailItem, Mailbox};
use crate::streams::merge::merge;
use crate::streams::table::StreamTable;
use crate::sync::Mutex;

const EPOCH: u64 = 7;

fn session() -> SessionId {
    SessionId::new("s1").unwrap()
}

fn at(offset: u64) -> Position {
    Position { epoch: EPOCH, offset }
}

fn start(offset: u64) -> Positions {
    Positions { session: at(offset), broadcast: at(0) }
}

fn event(offset: u64) -> Incoming {
    Incoming { payload: payload(offset), kind: EventKind::Directed, position: at(offset) }
}

fn payload(offset: u64) -> Payload {
    offset.to_string().into()
}

fn stream(reader: Reader) -> Arc<LocalStream> {
    let lease = Arc::new(Lease::new(Arc::new(SharedManualClock::default())));
    lease.extend(u64::MAX);
    let gate = Arc::new(Gate::new(lease, Lane::default(), true));
    LocalStream::new(session(), QueueLimits::default(), gate, reader)
}

fn open_stream(reader: Reader) -> Arc<LocalStream> {
    let stream = stream(reader);
    assert_eq!(stream.opened(1, start(0), false, Vec::new()), Outcome::Fine);
    stream
}

fn read_all(stream: &LocalStream) -> Vec<String> {
    std::iter::from_fn(|| stream.try_next()).map(|event| event.payload().to_string()).collect()
}

/// A backend in miniature: one log, signals sent under its lock.
struct Log(Mutex<u64>);

impl Log {
    fn accept(&self, table: &StreamTable) {
        let mut head = self.0.lock();
        *head += 1;
        for stream in table.get(&session()).into_iter().flatten() {
            assert_eq!(stream.offer(event(*head)), Outcome::Fine);
        }
    }

    fn claim(&self, after: Positions) -> Tail {
        let head = *self.0.lock();
        let own = (after.session.offset + 1..=head)
            .map(|offset| LogEntry { offset, after_broadcast: at(0), payload: payload(offset) })
            .collect();
        Tail { start: after, own, ..Tail::default() }
    }
}

#[test]
fn a_takeover_neither_loses_nor_doubles() {
    loom::model(|| {
        let table = Arc::new(StreamTable::new());
        let log = Arc::new(Log(Mutex::new(0)));
        let old = open_stream(Reader::Task);
        table.insert_opening(&old);
        assert!(table.settle(&old).is_none());

        let sender = {
            let (table, log) = (table.clone(), log.clone());
            thread::spawn(move || {
                log.accept(&table);
                log.accept(&table);
            })
        };
        let from = old.freeze().expect("the old stream is open");
        let new = stream(Reader::Task);
        table.insert_opening(&new);
        let tail = log.claim(from);
        let replaced = table.settle(&new).expect("the old stream was there");
        assert!(replaced.end(EndReason::Replaced).is_some());
        assert_eq!(new.opened(2, tail.start, tail.gap, merge(tail)), Outcome::Fine);
        sender.join().unwrap();

        assert!(old.try_next().is_none(), "a replaced stream delivers nothing more");
        assert_eq!(read_all(&new), ["1", "2"]);
        table.remove(&old);
        assert!(Arc::ptr_eq(&table.current(&session()).unwrap(), &new), "removing the old keeps the new");
        table.remove(&new);
        assert_eq!(table.len(), 0);
    });
}

#[test]
fn an_end_is_told_once_and_nothing_follows_a_fence() {
    loom::model(|| {
        let stream = open_stream(Reader::Task);
        let other = stream.clone();
        let sender = thread::spawn(move || other.offer(event(1)));
        let other = stream.clone();
        let closer = thread::spawn(move || other.end(EndReason::Closed).is_some());
        let fenced = stream.end(EndReason::Fenced).is_some();
        assert_eq!(sender.join().unwrap(), Outcome::Fine);
        assert!(closer.join().unwrap() != fenced, "exactly one of two ends counts");
        if fenced {
            assert!(stream.try_next().is_none());
        }
    });
}

#[test]
fn a_mailbox_never_sleeps_on_mail() {
    loom::model(|| {
        let wakes = Arc::new(AtomicUsize::new(0));
        let counter = wakes.clone();
        let mailbox = Mailbox::new(move || {
            counter.fetch_add(1, Ordering::SeqCst);
        });
        let one = open_stream(Reader::Mailbox(mailbox.clone(), 1));
        let two = open_stream(Reader::Mailbox(mailbox.clone(), 2));
        let sender = thread::spawn(move || {
            one.offer(event(1));
            two.offer(event(1));
            one.offer(event(2));
        });
        let mut got = Vec::new();
        let mut take = |token: u32, item: MailItem| {
            if let MailItem::Event(event) = item {
                got.push((token, event.payload().to_string()));
            }
        };
        // A reader that drains only when woken, as a binding does.
        let mut seen = 0;
        let mut drain_if_woken = || {
            let woken = wakes.load(Ordering::SeqCst) > seen;
            if woken {
                seen += 1;
                mailbox.drain(8, &mut take);
            }
            woken
        };
        drain_if_woken();
        sender.join().unwrap();
        while drain_if_woken() {}
        got.sort();
        assert_eq!(got, [(1, "1".to_owned()), (1, "2".to_owned()), (2, "1".to_owned())]);
        assert!(mailbox.is_empty());
    });
}
