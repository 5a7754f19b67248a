//! What an engine counted.

use std::sync::atomic::{AtomicU64, Ordering};

use serde::Serialize;

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        #[derive(Default)]
        pub(crate) struct Counters {
            $(pub(crate) $name: AtomicU64,)*
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
            pub(crate) fn read(&self) -> Stats {
                Stats {
                    streams: 0,
                    subscriptions: 0,
                    $($name: self.$name.load(Ordering::Relaxed),)*
                }
            }
        }
    };
}

counters! {
    /// Events accepted, counted in sessions; a broadcast counts once.
    accepted,
    /// Events dropped because their session is unknown (G4).
    dropped,
    /// Events that an idempotency key showed to be accepted before (G5).
    duplicates,
    /// Streams opened.
    opened,
    /// Streams opened with a gap (G3).
    gaps,
    /// Streams ended because a newer one took over (G6).
    replaced,
    /// Streams ended because their reader was too slow (G10).
    overflows,
    /// Streams ended because this node's lease ran out.
    fenced,
    /// Times a missed signal was read from a log.
    repairs,
    /// Subscriptions ended because their reader was too slow.
    subscription_overflows,
}

impl Counters {
    pub(crate) fn add(counter: &AtomicU64, n: u64) {
        if n > 0 {
            counter.fetch_add(n, Ordering::Relaxed);
        }
    }
}
