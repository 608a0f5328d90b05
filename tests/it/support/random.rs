//! Random numbers that can be repeated, for tests that go through many lives.

/// A generator of random numbers that can be repeated.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        // The generator stays at zero when it starts there.
        Self(seed.wrapping_mul(2) | 1)
    }

    /// Returns a number below `end` (`xorshift64*`).
    pub fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let number = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33;
        usize::try_from(number).unwrap() % end
    }

    pub fn pick<'a, T: ?Sized>(&mut self, choices: &[&'a T]) -> &'a T {
        choices[self.below(choices.len())]
    }
}

/// Returns the number in an environment variable, or else the default.
pub fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable)
        .ok()
        .map_or(default, |text| text.parse().unwrap())
}
