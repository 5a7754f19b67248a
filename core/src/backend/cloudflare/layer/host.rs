//! What the sync layer needs of the place it lives in.

/// Storage, sockets and the time of one Durable Object. Nothing here waits: storage of the platform
/// answers at once, and what is sent leaves only when what was stored is on disk.
pub trait Host {
    /// Milliseconds since the Unix epoch.
    fn now_ms(&self) -> u64;

    /// The value under a key.
    fn get(&self, key: &[u8]) -> Option<Vec<u8>>;

    /// Sets the value under a key.
    fn put(&self, key: &[u8], value: &[u8]);

    /// Removes a key.
    fn delete(&self, key: &[u8]);

    /// Calls `each` with the pairs from `from` up to but without `to`, in order of keys, at most so many.
    fn scan(&self, from: &[u8], to: &[u8], most: usize, each: &mut dyn FnMut(&[u8], &[u8]));

    /// When a node's open socket was last heard; `None` without one.
    fn heard_ms(&self, node: &str) -> Option<u64>;

    /// Puts a message on a node's socket, if it has one.
    fn send(&self, node: &str, message: &[u8]);

    /// Puts a line of text on a Worker's socket, before anything that is sent to it later.
    fn say(&self, node: &str, text: &str);

    /// Ends a Worker's stream or subscription, and says why.
    fn end(&self, node: &str, reason: &str);

    /// Sees to it that [`SyncLayer::alarm`](super::SyncLayer::alarm) is called at this time; one time
    /// at a time.
    fn wake_at(&self, at_ms: u64);
}
