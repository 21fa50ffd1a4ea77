//! Numbers that look random and are the same every time.

/// Xorshift: a case's number is all that is needed to throw the same again.
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(case: u64) -> Self {
        let mut dice = Self(case.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
        for _ in 0..8 {
            dice.next();
        }
        dice
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub(crate) fn below(&mut self, bound: usize) -> usize {
        (self.next() >> 11) as usize % bound
    }

    pub(crate) fn one_of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())]
    }

    pub(crate) fn bytes(&mut self, length: usize) -> Vec<u8> {
        (0..length).map(|_| self.next() as u8).collect()
    }

    /// Changes, takes or adds a few bytes.
    pub(crate) fn spoil(&mut self, bytes: &mut Vec<u8>) {
        let place = self.below(bytes.len() + 1);
        match self.below(4) {
            0 => bytes.truncate(place),
            1 => {
                let more = self.below(9);
                bytes.splice(place..place, self.bytes(more));
            }
            2 if place < bytes.len() => bytes[place] = self.next() as u8,
            _ if place < bytes.len() => bytes[place] ^= 1 << self.below(8),
            _ => {}
        }
    }
}
