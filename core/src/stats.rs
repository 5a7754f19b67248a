//! What an engine counted.

use std::sync::atomic::{AtomicU64, Ordering};

use serde::Serialize;

use crate::metrics::{Counter, SharedRecorder};

/// A count, and who else wants to know of it.
pub(crate) struct Counted {
    count: AtomicU64,
    counter: Counter,
    recorder: Option<SharedRecorder>,
}

impl Counted {
    pub(crate) fn add(&self, n: u64) {
        if n > 0 {
            self.count.fetch_add(n, Ordering::Relaxed);
            if let Some(recorder) = &self.recorder {
                recorder.count(self.counter, n);
            }
        }
    }
}

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident = $counter:ident,)*) => {
        pub(crate) struct Counters {
            $(pub(crate) $name: Counted,)*
        }

        /// What an engine counted since it was made, and what it holds now.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
        #[serde(rename_all = "camelCase")]
        #[non_exhaustive]
        pub struct Stats {
            /// Streams this node holds.
            pub streams: u64,
            /// Subscriptions (modern era) this node serves.
            pub subscriptions: u64,
            $($(#[$doc])* pub $name: u64,)*
        }

        impl Counters {
            pub(crate) fn new(recorder: Option<&SharedRecorder>) -> Self {
                let counted = |counter| Counted { count: AtomicU64::new(0), counter, recorder: recorder.cloned() };
                Counters { $($name: counted(Counter::$counter),)* }
            }

            pub(crate) fn read(&self) -> Stats {
                Stats {
                    streams: 0,
                    subscriptions: 0,
                    $($name: self.$name.count.load(Ordering::Relaxed),)*
                }
            }
        }
    };
}

counters! {
    /// Events accepted, counted in sessions; a broadcast counts once.
    accepted = Accepted,
    /// Events dropped because their session is unknown (G4).
    dropped = Dropped,
    /// Events that an idempotency key showed to be accepted before (G5).
    duplicates = Duplicates,
    /// Streams opened.
    opened = Opened,
    /// Streams opened with a gap (G3).
    gaps = Gaps,
    /// Streams ended because a newer one took over (G6).
    replaced = Replaced,
    /// Streams ended because their reader was too slow (G10).
    overflows = Overflows,
    /// Streams ended because this node's lease ran out.
    fenced = Fenced,
    /// Times a missed signal was read from a log.
    repairs = Repairs,
    /// Subscriptions ended because their reader was too slow.
    subscription_overflows = SubscriptionOverflows,
}
