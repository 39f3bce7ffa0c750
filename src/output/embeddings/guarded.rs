//! Calls of libraries that panic where a file is damaged. Such a panic becomes an error, and is not
//! printed.

use std::cell::Cell;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};
use std::sync::Once;

use super::error::{from_library, invalid_data};

thread_local! {
    /// Whether this thread is in a guarded call.
    static IS_GUARDED: Cell<bool> = const { Cell::new(false) };
}

/// The result of a call into a library.
///
/// # Errors
/// Those of the call; invalid data where the library panics.
pub(super) fn guarded<T, E>(call: impl FnOnce() -> Result<T, E>) -> io::Result<T>
where
    E: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let print = take_hook();
        set_hook(Box::new(move |panic| {
            if !IS_GUARDED.get() {
                print(panic);
            }
        }));
    });
    IS_GUARDED.set(true);
    // What the call leaves half done is dropped: after an error, nothing of a file is read again.
    let result = catch_unwind(AssertUnwindSafe(call));
    IS_GUARDED.set(false);
    match result {
        Ok(result) => result.map_err(from_library),
        Err(_) => Err(invalid_data(
            "the file is damaged: it contradicts itself".to_owned(),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_an_error_and_the_next_call_works() {
        let empty: Vec<u8> = Vec::new();
        let error = guarded(|| Ok::<_, io::Error>(empty[1])).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        assert_eq!(guarded(|| Ok::<_, io::Error>(7)).unwrap(), 7);
        let error = guarded(|| Err::<(), _>(io::Error::from(io::ErrorKind::NotFound)));
        assert_eq!(error.unwrap_err().kind(), io::ErrorKind::NotFound);
        assert!(!IS_GUARDED.get());
    }
}
