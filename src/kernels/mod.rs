//! The few operations that are our own because speed is what we exist for.
