//! Everything random in a world: one number, the seed, decides it, so that a world can be replayed.

/// A small generator whose whole state is its seed.
#[derive(Debug, Clone)]
pub(crate) struct Dice(u64);

impl Dice {
    /// Dice that differ from those of any other number, also of its neighbours.
    pub(crate) fn new(seed: u64) -> Self {
        let mut dice = Self(seed.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        dice.roll(2);
        dice
    }

    /// A number below `sides`.
    pub(crate) fn roll(&mut self, sides: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }

    /// The same, signed.
    pub(crate) fn below(&mut self, sides: u32) -> i64 {
        i64::try_from(self.roll(sides.into())).unwrap()
    }

    /// Whether something happens that happens once in this many times; never, if that is zero.
    pub(crate) fn once_in(&mut self, times: u64) -> bool {
        times > 0 && self.roll(times) == 0
    }

    /// One of these.
    pub(crate) fn pick<T: Copy>(&mut self, items: &[T]) -> T {
        let number = self.roll(u64::try_from(items.len()).unwrap());
        *items.get(usize::try_from(number).unwrap()).unwrap()
    }
}
