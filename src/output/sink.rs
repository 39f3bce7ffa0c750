//! The writing end of `embed`: a thread that writes embeddings in order while the next ones are computed, and keeps the journal.

use std::io;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use super::embeddings::{EmbeddingRecord, Writer};
use super::journal::Journal;

/// Groups of records that may wait to be written.
const WAITING: usize = 2;

/// A sequence that is done.
pub struct Done {
    /// What is written; nothing of a sequence whose result was refused.
    pub record: Option<EmbeddingRecord>,
    /// What the journal keeps, if the sequence is new to it.
    pub entry: Option<Vec<u8>>,
}

/// A writer on a thread of its own.
pub struct Sink {
    groups: Option<SyncSender<Vec<Done>>>,
    thread: Option<JoinHandle<io::Result<()>>>,
}

impl Sink {
    /// Starts the thread. With a journal, the entries of what is new are kept in it.
    ///
    /// # Errors
    /// Where the system has no thread left.
    pub fn new(writer: Writer, journal: Option<Journal>) -> io::Result<Self> {
        let (sender, receiver) = sync_channel(WAITING);
        let thread = std::thread::Builder::new()
            .name("output".to_owned())
            .spawn(move || run(writer, journal, &receiver))?;
        Ok(Sink {
            groups: Some(sender),
            thread: Some(thread),
        })
    }

    /// Hands on what is done, in order.
    ///
    /// # Errors
    /// What an earlier write met.
    pub fn write(&mut self, group: Vec<Done>) -> io::Result<()> {
        let sender = self.groups.as_ref().expect("open until finished");
        if sender.send(group).is_err() {
            return self.join();
        }
        Ok(())
    }

    /// Completes the output, then deletes the journal.
    ///
    /// # Errors
    /// What writing met.
    pub fn finish(mut self) -> io::Result<()> {
        self.write(Vec::new())?;
        self.join()
    }

    /// Waits for the thread and tells what it met.
    fn join(&mut self) -> io::Result<()> {
        self.groups = None;
        match self.thread.take().map(JoinHandle::join) {
            Some(Ok(result)) => result,
            Some(Err(panic)) => std::panic::resume_unwind(panic),
            None => Ok(()),
        }
    }
}

impl Drop for Sink {
    /// A run that failed waits until the thread has taken its unfinished file away.
    fn drop(&mut self) {
        self.groups = None;
        if let Some(thread) = self.thread.take() {
            // Whatever the thread met comes after the error that ended the run.
            drop(thread.join());
        }
    }
}

/// Writes groups until the empty one, which says that the run is complete. A closed channel without it means that the run failed.
fn run(
    mut writer: Writer,
    mut journal: Option<Journal>,
    groups: &Receiver<Vec<Done>>,
) -> io::Result<()> {
    while let Ok(group) = groups.recv() {
        if group.is_empty() {
            writer.finish()?;
            return journal.map_or(Ok(()), Journal::remove);
        }
        if let Some(journal) = &mut journal {
            group
                .iter()
                .filter_map(|done| done.entry.as_ref())
                .try_for_each(|entry| journal.append(entry))?;
            journal.flush()?;
        }
        group
            .iter()
            .filter_map(|done| done.record.as_ref())
            .try_for_each(|record| writer.write(record))?;
    }
    Ok(())
}
