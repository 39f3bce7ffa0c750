#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ankh3_fuzz::readers::pickle(data));
