//! Batches on one device or on several, one worker each; results in order. Where a device has no memory for a batch, in halves of it.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::sync_channel;

use candle_core::{Error, Result};

use crate::kernels::is_out_of_memory;

/// Runs `work` on every batch, on whichever of `devices` is free, and hands the results on in the order of the batches. What is handed on is done here, while the
/// devices are busy with the next.
///
/// # Errors
/// The first failure, in order.
pub(super) fn run<D: Sync + ?Sized, T: Send>(
    devices: &[&D],
    batches: &[Range<usize>],
    work: impl Fn(&D, Range<usize>) -> Result<T> + Sync,
    mut take: impl FnMut(Range<usize>, T),
) -> Result<()> {
    if let ([device], [batch]) = (devices, batches) {
        take(batch.clone(), work(device, batch.clone())?);
        return Ok(());
    }
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        // A device may be one batch ahead of what has been taken.
        let (sender, receiver) = sync_channel(devices.len());
        for device in devices {
            let (sender, next, work) = (sender.clone(), &next, &work);
            scope.spawn(move || {
                while let Some((number, batch)) = claim(next, batches) {
                    if sender.send((number, work(device, batch))).is_err() {
                        return;
                    }
                }
            });
        }
        drop(sender);
        let mut early = BTreeMap::new();
        let mut due = 0;
        for (number, result) in receiver {
            early.insert(number, result);
            while let Some(result) = early.remove(&due) {
                take(batches[due].clone(), result?);
                due += 1;
            }
        }
        Ok(())
    })
}

fn claim(next: &AtomicUsize, batches: &[Range<usize>]) -> Option<(usize, Range<usize>)> {
    let number = next.fetch_add(1, Ordering::Relaxed);
    batches.get(number).map(|batch| (number, batch.clone()))
}

/// Runs `work` on a batch; where the device is out of memory, `relieve` it and go on in halves. Results lie in order, each with its part of the batch.
///
/// # Errors
/// What `work` meets; out of memory only for a part that cannot be halved.
pub(super) fn in_halves<T>(
    batch: Range<usize>,
    work: &impl Fn(Range<usize>) -> Result<T>,
    relieve: &impl Fn(Range<usize>),
) -> Result<Vec<(Range<usize>, T)>> {
    match work(batch.clone()) {
        Ok(result) => Ok(vec![(batch, result)]),
        Err(error) if is_out_of_memory(&error) && batch.len() > 1 => {
            relieve(batch.clone());
            let middle = batch.start + batch.len() / 2;
            let mut results = in_halves(batch.start..middle, work, relieve)?;
            results.extend(in_halves(middle..batch.end, work, relieve)?);
            Ok(results)
        }
        Err(error) if is_out_of_memory(&error) => Err(Error::msg(format!(
            "the device has no memory for this sequence alone ({error}); take a GPU with more, --device cpu, --dtype bf16, or --max-length with --over chunk"
        ))),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[test]
    fn results_come_in_order_whoever_made_them() {
        let batches: Vec<Range<usize>> = (0..40).map(|i| 3 * i..3 * i + 3).collect();
        for devices in [&[&1_u64][..], &[&7, &0, &3]] {
            let mut taken = Vec::new();
            let work = |device: &u64, batch: Range<usize>| {
                std::thread::sleep(std::time::Duration::from_micros(device * 50));
                Ok(batch.sum::<usize>())
            };
            run(devices, &batches, work, |batch, sum| {
                taken.push((batch, sum));
            })
            .unwrap();
            let expected: Vec<_> = batches
                .iter()
                .map(|b| (b.clone(), b.clone().sum()))
                .collect();
            assert_eq!(taken, expected);
        }
    }

    #[test]
    fn the_first_failure_ends_it() {
        let batches: Vec<Range<usize>> = (0..20).map(|i| i..i + 1).collect();
        let work = |_: &u8, batch: Range<usize>| match batch.start {
            13 | 17 => Err(Error::msg(format!("batch {}", batch.start))),
            start => Ok(start),
        };
        let mut taken = Vec::new();
        let error = run(&[&0, &1], &batches, work, |_, start| taken.push(start)).unwrap_err();
        assert!(error.to_string().contains("batch 13"), "{error}");
        assert_eq!(taken, (0..13).collect::<Vec<_>>());
    }

    #[test]
    fn out_of_memory_halves_and_loses_nothing() {
        let relieved = Mutex::new(Vec::new());
        let work = |batch: Range<usize>| {
            if batch.len() > 3 {
                return Err(Error::msg(
                    "DriverError(CUDA_ERROR_OUT_OF_MEMORY, \"out of memory\")",
                ));
            }
            Ok(batch.clone().collect::<Vec<_>>())
        };
        let relieve = |batch| relieved.lock().unwrap().push(batch);
        let results = in_halves(0..10, &work, &relieve).unwrap();
        let all: Vec<usize> = results.iter().flat_map(|(_, part)| part.clone()).collect();
        assert_eq!(all, (0..10).collect::<Vec<_>>());
        assert!(
            results
                .iter()
                .all(|(batch, part)| batch.clone().eq(part.iter().copied()))
        );
        assert_eq!(*relieved.lock().unwrap(), [0..10, 0..5, 5..10]);
    }

    #[test]
    fn one_sequence_too_many_is_told_with_a_way_out() {
        let work = |_: Range<usize>| Err::<(), _>(Error::msg("CUBLAS_STATUS_ALLOC_FAILED"));
        let error = in_halves(4..5, &work, &|_| ()).unwrap_err().to_string();
        assert!(error.contains("--over chunk"), "{error}");
        let work = |_: Range<usize>| Err::<(), _>(Error::msg("another thing"));
        let error = in_halves(0..5, &work, &|_| panic!("it is not memory")).unwrap_err();
        assert!(error.to_string().contains("another thing"));
    }
}
