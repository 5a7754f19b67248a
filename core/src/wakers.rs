//! Who waits for something: each task until it is woken or waits no more.

use std::task::Waker;

/// The tasks that wait for one thing.
#[derive(Default)]
pub(crate) struct Wakers {
    waiting: Vec<(u64, Waker)>,
    last: u64,
}

/// What tasks wait for.
pub(crate) trait Waited {
    /// Nobody waits at this place any more.
    fn leave(&self, place: u64);
}

/// One wait. Dropped, it leaves nothing behind: an idle stream may be asked again and again, with a
/// deadline each time.
pub(crate) struct Wait<'a, W: Waited> {
    on: &'a W,
    /// Its place among the wakers; none at first.
    pub(crate) place: Option<u64>,
}

impl Wakers {
    /// The task at this place waits; one that has none is given one.
    pub(crate) fn wait(&mut self, place: &mut Option<u64>, waker: &Waker) {
        let place = *place.get_or_insert_with(|| {
            self.last += 1;
            self.last
        });
        match self.waiting.iter_mut().find(|(taken, _)| *taken == place) {
            Some((_, known)) => known.clone_from(waker),
            None => self.waiting.push((place, waker.clone())),
        }
    }

    /// Nobody waits at this place any more.
    pub(crate) fn leave(&mut self, place: u64) {
        self.waiting.retain(|(taken, _)| *taken != place);
    }

    /// All that wait, to be woken once no lock is held.
    pub(crate) fn take(&mut self) -> Wakers {
        Wakers { waiting: std::mem::take(&mut self.waiting), last: 0 }
    }

    /// Wakes them.
    pub(crate) fn wake(self) {
        self.waiting.into_iter().for_each(|(_, waker)| waker.wake());
    }
}

impl<'a, W: Waited> Wait<'a, W> {
    pub(crate) fn on(on: &'a W) -> Self {
        Wait { on, place: None }
    }
}

impl<W: Waited> Drop for Wait<'_, W> {
    fn drop(&mut self) {
        if let Some(place) = self.place {
            self.on.leave(place);
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::future::Future;
    use std::pin::pin;
    use std::sync::Arc;
    use std::task::{Context, Wake};

    use crate::{Engine, OpenOptions, RequestId, SessionId, SubscriptionFilter, SubscriptionKey};

    struct Task;

    impl Wake for Task {
        fn wake(self: Arc<Self>) {}
    }

    /// How many hold on to a task that waited for this, and gave up.
    fn left_by<T>(wait: impl Future<Output = T>) -> usize {
        let task = Arc::new(Task);
        {
            let mut wait = pin!(wait);
            assert!(wait.as_mut().poll(&mut Context::from_waker(&task.clone().into())).is_pending());
        }
        Arc::strong_count(&task) - 1
    }

    #[tokio::test]
    async fn who_gives_up_leaves_nothing_behind() {
        let engine = Engine::memory();
        let stream = engine.streams().open(&SessionId::random(), OpenOptions::default()).await.unwrap();
        let key = SubscriptionKey::new(RequestId::number(1), "o");
        let subscription =
            engine.subscriptions().create(key, SubscriptionFilter::default()).unwrap().unwrap();
        let closings = engine.registry().closings();
        assert_eq!((left_by(stream.next()), left_by(stream.ended())), (0, 0));
        assert_eq!((left_by(subscription.next()), left_by(subscription.ended())), (0, 0));
        assert_eq!(left_by(closings.next()), 0);
    }
}
