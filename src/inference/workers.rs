//! Batches on one device or on several, one worker per device; results in order. Where a device has
//! no memory for a batch, the batch runs in halves.
//!
//! On a CPU each thread takes batches of its own, small enough for its caches; operations of a
//! batch also use threads that have no batch.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::sync_channel;

use candle_core::{Device, Error, Result};
use rayon::prelude::*;

use crate::kernels::{is_out_of_memory, release_memory};
use crate::model::{Decoder, Encoder};
use crate::packing::by_token_budget;

/// Tokens that a thread of a CPU takes at a time: values between two products then stay in the
/// thread's caches (2048 tokens took 7 % longer on a Zen 5 with 1 MiB per core), and there are
/// enough tokens for whole tasks of products.
const TOKENS_OF_THREAD: usize = 512;

/// Tokens that keep every thread of a CPU busy when batches take unequal times.
pub fn tokens_of_threads() -> usize {
    2 * rayon::current_num_threads() * TOKENS_OF_THREAD
}

/// Copies of one network, each on a device of its own: at least one.
#[derive(Clone, Debug)]
pub struct Replicas<N> {
    first: N,
    others: Vec<N>,
}

impl<N> Replicas<N> {
    /// One network and its copies on other devices.
    pub fn new(first: N, others: Vec<N>) -> Self {
        Self { first, others }
    }

    /// The first network, for what all replicas have in common.
    pub fn first(&self) -> &N {
        &self.first
    }

    /// All replicas.
    pub fn iter(&self) -> impl Iterator<Item = &N> {
        std::iter::once(&self.first).chain(&self.others)
    }

    /// `f` of every replica.
    pub fn each<'a, T>(&'a self, mut f: impl FnMut(&'a N) -> T) -> Replicas<T> {
        Replicas {
            first: f(&self.first),
            others: self.others.iter().map(f).collect(),
        }
    }
}

impl<N> From<N> for Replicas<N> {
    fn from(network: N) -> Self {
        Self::new(network, Vec::new())
    }
}

/// Both stacks of a network, on one device.
#[derive(Clone, Copy, Debug)]
pub struct EncoderDecoder<'a> {
    /// The encoder.
    pub encoder: &'a Encoder,
    /// The decoder.
    pub decoder: &'a Decoder,
}

impl<'a> From<&'a (Encoder, Decoder)> for EncoderDecoder<'a> {
    fn from((encoder, decoder): &'a (Encoder, Decoder)) -> Self {
        Self { encoder, decoder }
    }
}

impl EncoderDecoder<'_> {
    /// The device of both stacks.
    pub(super) fn device(&self) -> &Device {
        self.encoder.device()
    }
}

/// The replicas of a network, and the size of their batches.
pub(super) struct Workers<N> {
    replicas: Replicas<N>,
    device: fn(&N) -> &Device,
    /// Tokens per batch; fewer than requested once a device had no memory for a batch.
    max_batch_tokens: AtomicUsize,
}

impl<N: Sync> Workers<N> {
    /// Workers for `replicas`; `device` says where a replica lies.
    pub(super) fn new(
        replicas: Replicas<N>,
        device: fn(&N) -> &Device,
        max_batch_tokens: usize,
    ) -> Self {
        Self {
            replicas,
            device,
            max_batch_tokens: AtomicUsize::new(max_batch_tokens),
        }
    }

    /// The first network, for what all replicas have in common.
    pub(super) fn network(&self) -> &N {
        self.replicas.first()
    }

    /// The largest number of tokens per batch.
    pub(super) fn max_batch_tokens(&self) -> usize {
        self.max_batch_tokens.load(Ordering::Relaxed)
    }

    /// Runs `work` on batches of items with `tokens` tokens each, or on parts of a batch where a
    /// device has no memory for the whole. Passes the results to `take` in order, each with the
    /// range of its items.
    ///
    /// # Errors
    /// The first failure of `work` or `take`, in order.
    pub(super) fn run<T: Send, E: From<Error>>(
        &self,
        tokens: &[usize],
        work: impl Fn(&N, Range<usize>) -> Result<T> + Sync,
        take: impl FnMut(Range<usize>, T) -> std::result::Result<(), E>,
    ) -> std::result::Result<(), E> {
        let budget = self.max_batch_tokens();
        let network = self.network();
        if self.replicas.others.is_empty() && (self.device)(network).is_cpu() {
            let batches = by_token_budget(tokens, budget.min(TOKENS_OF_THREAD));
            return on_threads(&batches, |batch| work(network, batch), take);
        }
        self.run_batches(&by_token_budget(tokens, budget), tokens, work, take)
    }

    /// [`Workers::run`] on the given batches.
    ///
    /// # Errors
    /// As [`Workers::run`].
    pub(super) fn run_batches<T: Send, E: From<Error>>(
        &self,
        batches: &[Range<usize>],
        tokens: &[usize],
        work: impl Fn(&N, Range<usize>) -> Result<T> + Sync,
        mut take: impl FnMut(Range<usize>, T) -> std::result::Result<(), E>,
    ) -> std::result::Result<(), E> {
        let work = |network: &N, batch: Range<usize>| {
            let relieve = |part: Range<usize>| {
                release_memory((self.device)(network));
                self.take_less(tokens[part].iter().sum());
            };
            in_halves(batch, &|part| work(network, part), &relieve)
        };
        let networks: Vec<&N> = self.replicas.iter().collect();
        run(&networks, batches, work, |_, parts| {
            parts
                .into_iter()
                .try_for_each(|(part, result)| take(part, result))
        })
    }

    /// Halves the size of batches after a batch of `tokens` tokens ran out of memory.
    fn take_less(&self, tokens: usize) {
        let less = (tokens / 2).max(1);
        if self.max_batch_tokens.fetch_min(less, Ordering::Relaxed) > less {
            tracing::warn!(
                "no memory for a batch of {tokens} tokens: going on with {less} (--max-batch-tokens {less} begins there)"
            );
        }
    }
}

/// `reserve(rows)`; where `device` has no memory for the rows, with half as many, again and again,
/// but not with fewer than `least`. Returns the result and its number of rows.
///
/// # Errors
/// The errors of `reserve`.
pub(super) fn with_room<T>(
    device: &Device,
    mut rows: usize,
    least: usize,
    reserve: impl Fn(usize) -> Result<T>,
) -> Result<(T, usize)> {
    loop {
        match reserve(rows) {
            Err(error) if is_out_of_memory(&error) && rows / 2 >= least => {
                release_memory(device);
                tracing::warn!("no memory for {rows} rows of keys and values: going on with half");
                rows /= 2;
            }
            result => return Ok((result?, rows)),
        }
    }
}

/// Runs `work` on every batch, on whichever of `devices` is free, and passes the results to `take`
/// in the order of the batches. `take` runs on the calling thread while the devices compute the
/// next batches.
///
/// # Errors
/// The first failure of `work` or `take`, in order.
fn run<D: Sync + ?Sized, T: Send, E: From<Error>>(
    devices: &[&D],
    batches: &[Range<usize>],
    work: impl Fn(&D, Range<usize>) -> Result<T> + Sync,
    mut take: impl FnMut(Range<usize>, T) -> std::result::Result<(), E>,
) -> std::result::Result<(), E> {
    if let ([device], [batch]) = (devices, batches) {
        return take(batch.clone(), work(device, batch.clone())?);
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
                take(batches[due].clone(), result?)?;
                due += 1;
            }
        }
        Ok(())
    })
}

/// Runs `work` on every batch, several at a time where there are several threads, and passes the
/// results to `take` in order.
///
/// # Errors
/// The first failure of `work` or `take`, in order.
fn on_threads<T: Send, E: From<Error>>(
    batches: &[Range<usize>],
    work: impl Fn(Range<usize>) -> Result<T> + Sync,
    mut take: impl FnMut(Range<usize>, T) -> std::result::Result<(), E>,
) -> std::result::Result<(), E> {
    let at_a_time = match rayon::current_num_threads() {
        1 => 1,
        threads => 2 * threads,
    };
    for batches in batches.chunks(at_a_time) {
        let results: Vec<Result<T>> = if let [batch] = batches {
            vec![work(batch.clone())]
        } else {
            let each = batches.par_iter().with_max_len(1);
            each.map(|batch| work(batch.clone())).collect()
        };
        for (batch, result) in batches.iter().zip(results) {
            take(batch.clone(), result?)?;
        }
    }
    Ok(())
}

fn claim(next: &AtomicUsize, batches: &[Range<usize>]) -> Option<(usize, Range<usize>)> {
    let number = next.fetch_add(1, Ordering::Relaxed);
    batches.get(number).map(|batch| (number, batch.clone()))
}

/// Runs `work` on a batch. Where the device is out of memory, calls `relieve` and continues with
/// halves of the batch. Results are in order, each with its part of the batch.
///
/// # Errors
/// The errors of `work`; out of memory only for a part that cannot be halved.
fn in_halves<T>(
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
            "the device has no memory for this sequence alone ({error}); take a GPU with more, --device cpu, --dtype bf16, or in `embed` --max-length with --over chunk"
        ))),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[test]
    fn on_threads_results_come_in_order_and_the_first_failure_ends_it() {
        let batches: Vec<Range<usize>> = (0..40).map(|i| 3 * i..3 * i + 3).collect();
        for threads in [1, 3] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
            pool.build().unwrap().install(|| {
                let mut taken = Vec::new();
                let work = |batch: Range<usize>| match batch.start {
                    90 => Err(Error::msg("ninety")),
                    start => Ok(start),
                };
                let ended = on_threads(&batches, work, |batch, start| {
                    assert_eq!(batch.start, start);
                    taken.push(start);
                    Ok::<(), Error>(())
                });
                assert!(ended.unwrap_err().to_string().contains("ninety"));
                assert_eq!(taken, (0..30).map(|i| 3 * i).collect::<Vec<_>>());
            });
        }
    }

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
                Ok::<(), Error>(())
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
        let take = |_, start| {
            taken.push(start);
            Ok::<(), Error>(())
        };
        let error = run(&[&0, &1], &batches, work, take).unwrap_err();
        assert!(error.to_string().contains("batch 13"), "{error}");
        assert_eq!(taken, (0..13).collect::<Vec<_>>());
    }

    #[test]
    fn a_result_that_cannot_be_taken_ends_it_too() {
        let batches: Vec<Range<usize>> = (0..20).map(|i| i..i + 1).collect();
        let take = |_, start| match start {
            5 => Err(Error::msg("the disk is full")),
            _ => Ok(()),
        };
        let work = |_: &u8, batch: Range<usize>| Ok(batch.start);
        let error = run(&[&0, &1], &batches, work, take).unwrap_err();
        assert!(error.to_string().contains("the disk"), "{error}");
    }

    /// A device with memory for a number of tokens.
    struct Small(usize);

    #[test]
    fn devices_without_memory_get_less_and_nothing_is_lost() {
        let tokens: Vec<usize> = (0..50).map(|i| 10 + i % 7).collect();
        let replicas = Replicas::new(Small(70), vec![Small(45)]);
        let workers = Workers::new(replicas, |_| &Device::Cpu, 100);
        let work = |device: &Small, batch: Range<usize>| {
            if tokens[batch.clone()].iter().sum::<usize>() > device.0 {
                return Err(Error::msg("CUDA_ERROR_OUT_OF_MEMORY"));
            }
            Ok(batch.collect::<Vec<_>>())
        };
        let mut all = Vec::new();
        let take = |batch: Range<usize>, part: Vec<usize>| {
            assert!(batch.eq(part.iter().copied()));
            all.extend(part);
            Ok::<(), Error>(())
        };
        workers.run(&tokens, work, take).unwrap();
        assert_eq!(all, (0..50).collect::<Vec<_>>());
        assert!((20..70).contains(&workers.max_batch_tokens()));
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
    fn room_is_halved_until_it_fits() {
        let reserve = |rows| match rows {
            ..=300 => Ok(rows),
            _ => Err(Error::msg("CUDA_ERROR_OUT_OF_MEMORY")),
        };
        let room = |least| with_room(&Device::Cpu, 1024, least, reserve);
        assert_eq!(room(100).unwrap(), (256, 256));
        assert!(room(300).is_err());
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
