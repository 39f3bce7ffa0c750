//! Huge pages for memory that is read through at every step: the processor looks up one address in 2 MiB instead of one in 4 KiB.

/// Below this, the system's own pages do.
const LEAST: usize = 4 << 20;
/// The smallest page of the system; `madvise` wants whole ones.
const PAGE: usize = 4096;

/// Asks the system for huge pages where `values` lie that nothing has touched yet. A system that refuses changes nothing but speed.
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
        // SAFETY: the range lies within the vector's own allocation, and MADV_HUGEPAGE changes no value.
        unsafe { libc::madvise(start.add(skipped).cast(), length, libc::MADV_HUGEPAGE) };
    }
}
