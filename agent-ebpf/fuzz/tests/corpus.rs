//! The seeds, and some thousand mutations of them that are the same in every run: a short look for what `cargo xtask fuzz` looks for long.
#![allow(clippy::unwrap_used, reason = "tests")]

use fuzz::{run::run, script};

/// Mutations of each seed.
const MUTATIONS: usize = 25;

/// A generator of its own (xorshift64*): what is tested must not change with a dependency.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % limit.max(1)
    }

    /// Changes a few bytes, cuts, or puts a piece of another input in; keeps the head, which chooses the case.
    fn mutate(&mut self, seed: &[u8], other: &[u8]) -> Vec<u8> {
        let mut input = seed.to_vec();
        for _ in 0..=self.below(4) {
            let at = 4 + self.below(input.len() - 4);
            match self.below(5) {
                0 => input[at] ^= 1 << self.below(8),
                1 => input[at] = self.below(256) as u8,
                2 => input[at] = [0, 1, 0x7f, 0x80, 0xff][self.below(5)],
                3 => input.truncate(at.max(8)),
                _ => drop(input.splice(at..at, other[4 + self.below(other.len() - 4)..].iter().copied())),
            }
        }
        input
    }
}

#[test]
fn what_was_found_once_is_not_found_again() {
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/findings");
    // Git keeps no empty directory: without findings there is none.
    for entry in std::fs::read_dir(directory).into_iter().flatten() {
        let path = entry.unwrap().path();
        let input = std::fs::read(&path).unwrap();
        run(&input).unwrap_or_else(|finding| panic!("{}: {finding}", path.display()));
    }
}

#[test]
fn seeds_and_their_mutations_break_no_rule() {
    let seeds = script::seeds();
    assert!(seeds.len() > 100, "golden's cases are the seeds");
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    for (name, seed) in &seeds {
        run(seed).unwrap_or_else(|finding| panic!("{name}: {finding}"));
        for _ in 0..MUTATIONS {
            let other = &seeds[random.below(seeds.len())].1;
            let input = random.mutate(seed, other);
            run(&input).unwrap_or_else(|finding| panic!("a mutation of {name}, {input:02x?}: {finding}"));
        }
    }
}
