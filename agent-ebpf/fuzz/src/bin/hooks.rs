//! The fuzzer's target: plays an input and panics on a finding. `cargo xtask fuzz` builds and runs it.
#![no_main]
#![expect(unsafe_code, reason = "libFuzzer calls a function by its C name, which the macro defines")]

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    if let Err(finding) = fuzz::run::run(input) {
        panic!("{finding}");
    }
});
