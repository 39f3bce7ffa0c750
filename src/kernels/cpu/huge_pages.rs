//! Huge pages for memory that every step reads through: the processor translates one address per 2
//! MiB instead of one per 4 KiB.

/// Bytes below which huge pages gain nothing.
const LEAST: usize = 4 << 20;
/// The smallest page of the system; `madvise` takes whole pages.
const PAGE: usize = 4096;

/// Asks the system for huge pages for the memory of `values`, which nothing has touched yet. If the
/// system declines, only speed suffers.
pub(super) fn advise<T>(values: &mut Vec<T>) {
    let bytes = values.capacity() * size_of::<T>();
    if bytes < LEAST {
        return;
    }
    #[cfg(target_os = "linux")]
    #[expect(unsafe_code, reason = "a system call; the block says why it is sound")]
    {
        let start = values.as_mut_ptr().cast::<u8>();
        let skipped = start.align_offset(PAGE);
        let length = (bytes - skipped) / PAGE * PAGE;
        // SAFETY: the range lies within the vector's own allocation, and MADV_HUGEPAGE changes no
        // value.
        unsafe { libc::madvise(start.add(skipped).cast(), length, libc::MADV_HUGEPAGE) };
    }
}
