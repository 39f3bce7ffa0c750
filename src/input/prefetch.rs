//! Prefetching: an iterator runs on a thread of its own, as far ahead as a budget of bytes allows.

use std::panic::resume_unwind;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

/// The items of an iterator that runs ahead on a thread, in the order of the iterator.
pub struct Prefetch<T> {
    items: Receiver<(usize, T)>,
    budget: Arc<Budget>,
    thread: Option<JoinHandle<()>>,
}

impl<T: Send + 'static> Prefetch<T> {
    /// Runs `iterator` on a thread. The items that wait have at most `limit` bytes in sum, as
    /// `weigh` counts them; one item may always wait, however large.
    ///
    /// # Errors
    /// Where the system has no thread left.
    pub fn spawn(
        iterator: impl Iterator<Item = T> + Send + 'static,
        weigh: fn(&T) -> usize,
        limit: usize,
    ) -> std::io::Result<Self> {
        let (sender, items) = channel();
        let budget = Arc::new(Budget {
            limit,
            held: Mutex::default(),
            changed: Condvar::new(),
        });
        let theirs = Arc::clone(&budget);
        let thread = thread::Builder::new()
            .name("input".to_owned())
            .spawn(move || run(iterator, weigh, &sender, &theirs))?;
        Ok(Prefetch {
            items,
            budget,
            thread: Some(thread),
        })
    }
}

fn run<T>(
    iterator: impl Iterator<Item = T>,
    weigh: fn(&T) -> usize,
    sender: &Sender<(usize, T)>,
    budget: &Budget,
) {
    for item in iterator {
        let weight = weigh(&item);
        if !budget.take(weight) || sender.send((weight, item)).is_err() {
            return;
        }
    }
}

impl<T> Iterator for Prefetch<T> {
    type Item = T;

    fn next(&mut self) -> Option<T> {
        if let Ok((weight, item)) = self.items.recv() {
            self.budget.give_back(weight);
            return Some(item);
        }
        // The thread has ended. If it panicked, items are missing, which must not look like the end
        // of the input.
        if let Some(Err(panic)) = self.thread.take().map(JoinHandle::join) {
            resume_unwind(panic);
        }
        None
    }
}

impl<T> Drop for Prefetch<T> {
    fn drop(&mut self) {
        // The thread may wait for the budget, or for input that never comes. Wake it up, but do not
        // wait for its end.
        self.budget.close();
    }
}

struct Budget {
    limit: usize,
    /// The items that wait.
    held: Mutex<Held>,
    changed: Condvar,
}

#[derive(Default)]
struct Held {
    bytes: usize,
    closed: bool,
}

impl Budget {
    /// Waits until the budget has room; false once the consumer is gone.
    fn take(&self, weight: usize) -> bool {
        let full =
            |held: &mut Held| !held.closed && held.bytes > 0 && held.bytes + weight > self.limit;
        let waited = self.changed.wait_while(self.lock(), full);
        let mut held = waited.unwrap_or_else(PoisonError::into_inner);
        held.bytes += weight;
        !held.closed
    }

    fn give_back(&self, weight: usize) {
        self.lock().bytes -= weight;
        self.changed.notify_one();
    }

    fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use super::*;

    #[test]
    fn everything_comes_in_order_whatever_the_budget() {
        for limit in [0, 1, 7, 1000] {
            let ahead = Prefetch::spawn(0..500_usize, |item| *item, limit).unwrap();
            assert!(ahead.eq(0..500));
        }
    }

    #[test]
    fn the_thread_runs_no_further_ahead_than_the_budget() {
        let made = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&made);
        let endless = std::iter::repeat_with(move || counter.fetch_add(1, Ordering::SeqCst));
        let mut ahead = Prefetch::spawn(endless, |_| 10, 100).unwrap();
        for taken in 1..=20 {
            ahead.next();
            thread::sleep(Duration::from_millis(1));
            // Ten items wait, and the thread holds one more.
            assert!(made.load(Ordering::SeqCst) <= taken + 11);
        }
        drop(ahead);
    }

    #[test]
    fn dropping_the_iterator_ends_the_thread() {
        let alive = Arc::new(());
        let inside = Arc::clone(&alive);
        let endless = std::iter::repeat_with(move || Arc::strong_count(&inside));
        let mut ahead = Prefetch::spawn(endless, |_| 1, 4).unwrap();
        ahead.next();
        drop(ahead);
        let ended = (0..5000).any(|_| {
            thread::sleep(Duration::from_millis(1));
            Arc::strong_count(&alive) == 1
        });
        assert!(ended);
    }

    #[test]
    fn a_panic_is_passed_on() {
        let items = (0..3).inspect(|item| assert!(*item < 2, "made to panic"));
        let mut ahead = Prefetch::spawn(items, |_| 1, 100).unwrap();
        assert_eq!((ahead.next(), ahead.next()), (Some(0), Some(1)));
        assert!(catch_unwind(AssertUnwindSafe(|| ahead.next())).is_err());
    }
}
