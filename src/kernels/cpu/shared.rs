//! A pointer that the threads of one kernel share.

/// A pointer through which several threads write, each to a range of its own.
#[derive(Clone, Copy)]
pub(crate) struct SharedMut(pub *mut f32);
#[expect(unsafe_code, reason = "tasks write disjoint ranges; see each use")]
// SAFETY: the kernels hand every task a disjoint part of the target.
unsafe impl Send for SharedMut {}
#[expect(unsafe_code, reason = "as above")]
// SAFETY: as above.
unsafe impl Sync for SharedMut {}
impl SharedMut {
    /// The pointer (a method, so that closures capture the whole struct).
    pub(crate) fn get(self) -> *mut f32 {
        self.0
    }
}
