//! Random numbers: the system's, or reproducible ones in a test.

/// Fills `bytes`.
///
/// # Errors
/// The system gives no random numbers.
pub(crate) fn fill(bytes: &mut [u8]) -> Result<(), getrandom::Error> {
    #[cfg(test)]
    if dice::fill(bytes) {
        return Ok(());
    }
    getrandom::fill(bytes)
}

/// Returns a random number.
///
/// # Errors
/// The system gives no random numbers.
pub(crate) fn u64() -> Result<u64, getrandom::Error> {
    let mut bytes = [0; 8];
    fill(&mut bytes)?;
    Ok(u64::from_le_bytes(bytes))
}

#[cfg(test)]
pub(crate) mod dice {
    use std::cell::RefCell;

    use crate::storage::local::proofs::Dice;

    thread_local! {
        static DICE: RefCell<Option<Dice>> = const { RefCell::new(None) };
    }

    /// From here on this thread gets the numbers of `dice`.
    pub(crate) fn set(dice: Dice) {
        DICE.set(Some(dice));
    }

    pub(super) fn fill(bytes: &mut [u8]) -> bool {
        DICE.with_borrow_mut(|dice| {
            let Some(dice) = dice else {
                return false;
            };
            for chunk in bytes.chunks_mut(8) {
                chunk.copy_from_slice(&dice.next().to_le_bytes()[..chunk.len()]);
            }
            true
        })
    }
}
