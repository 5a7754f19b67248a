// What Swift users expect beside the generated classes: asynchronous sequences that a cancelled task leaves.

/// The most events that cross the border in one call.
private let batchSize: UInt32 = 256

extension EventStream {
    /// The events of this stream, in order; ends when the stream has ended and what was queued is read, or
    /// when the task that reads is cancelled.
    ///
    /// Events are taken in batches: a loop that stops in the middle resumes with the ``Event/cursor`` of the
    /// last event it has seen. The stream itself stays open; ``stop()`` gives it back.
    ///
    /// ```swift
    /// for await event in try await engine.streams().open(session: "session-1").events {
    ///     print(event.payload)
    /// }
    /// ```
    public var events: Events {
        Events(stream: self)
    }

    /// The events of a stream.
    public struct Events: AsyncSequence, Sendable {
        public typealias Element = Event

        fileprivate let stream: EventStream

        public func makeAsyncIterator() -> Iterator {
            Iterator(stream: stream)
        }

        /// Takes events in batches.
        public struct Iterator: AsyncIteratorProtocol {
            private let stream: EventStream
            private var batch: ArraySlice<Event> = []

            fileprivate init(stream: EventStream) {
                self.stream = stream
            }

            public mutating func next() async -> Event? {
                if batch.isEmpty {
                    let stream = self.stream
                    let taken = await untilCancelled { until in
                        await stream.nextBatch(limit: batchSize, until: until)
                    }
                    batch = taken[...]
                }
                return batch.popFirst()
            }
        }
    }
}

extension Subscription {
    /// The notifications of this subscription, as JSON, in order; ends when it has ended, or when the task
    /// that reads is cancelled.
    public var notifications: Unfolding<String> {
        Unfolding { until in await self.next(until: until) }
    }
}

extension EventTail {
    /// The events of this tail, in order; ends when it has ended, or when the task that reads is cancelled.
    ///
    /// The tail itself stays as it is; ``stop()`` ends it, and the next one that follows its stream begins
    /// after the last event read.
    ///
    /// ```swift
    /// for await event in try await engine.events(scope: "session-1").follow(stream: "_GET_stream").events {
    ///     print(event.payload)
    /// }
    /// ```
    public var events: Unfolding<LoggedEvent> {
        Unfolding { until in await self.next(until: until) }
    }
}

extension Closings {
    /// The closings, in order; ends when the engine is shut down, or when the task that reads is cancelled.
    public var sessions: Unfolding<Closing> {
        Unfolding { until in await self.next(until: until) }
    }
}

/// What is taken one by one, until there is no more or the task that reads is cancelled.
public struct Unfolding<Element: Sendable>: AsyncSequence, Sendable {
    private let take: @Sendable (Cancellation?) async -> Element?

    fileprivate init(take: @escaping @Sendable (Cancellation?) async -> Element?) {
        self.take = take
    }

    public func makeAsyncIterator() -> Iterator {
        Iterator(take: take)
    }

    /// Takes the next one.
    public struct Iterator: AsyncIteratorProtocol {
        fileprivate let take: @Sendable (Cancellation?) async -> Element?

        public mutating func next() async -> Element? {
            let take = self.take
            return await untilCancelled { until in await take(until) }
        }
    }
}

/// Waits for `work`, which a cancelled task ends through the handle it is given.
private func untilCancelled<T: Sendable>(_ work: @Sendable (Cancellation) async -> T) async -> T {
    let until = Cancellation()
    return await withTaskCancellationHandler {
        await work(until)
    } onCancel: {
        until.cancel()
    }
}
