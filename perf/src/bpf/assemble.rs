//! An assembler for the handful of BPF instructions that the generators need.
//!
//! # See
//! Linux: Documentation/bpf/standardization/instruction-set.rst (RFC 9669).

/// A register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reg(pub(crate) u8);

/// The first register: a result.
pub(crate) const R0: Reg = Reg(0);
/// The first argument.
pub(crate) const R1: Reg = Reg(1);
/// The second argument.
pub(crate) const R2: Reg = Reg(2);
/// The third argument.
pub(crate) const R3: Reg = Reg(3);
/// The first register that survives a call.
pub(crate) const R6: Reg = Reg(6);
/// The second one.
pub(crate) const R7: Reg = Reg(7);
/// The third one.
pub(crate) const R8: Reg = Reg(8);
/// The end of the stack.
pub(crate) const R10: Reg = Reg(10);

/// How much a load or store moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Size {
    B1 = 0x10,
    B2 = 0x08,
    B4 = 0x00,
    B8 = 0x18,
}

/// A helper of the kernel, by number (include/uapi/linux/bpf.h).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Helper {
    MapLookup = 1,
    PseudoRandom = 7,
    TailCall = 12,
    XdpAdjustHead = 44,
}

/// A place that jumps lead to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Label(usize);

/// A program in the making.
#[derive(Default)]
pub(crate) struct Assembler {
    code: Vec<[u8; 8]>,
    /// By label, where it is.
    labels: Vec<Option<usize>>,
    /// Jumps and their labels.
    jumps: Vec<(usize, Label)>,
    /// Instructions that name a map.
    maps: Vec<(usize, &'static str)>,
}

/// A program.
#[derive(Clone, Debug)]
pub(crate) struct Program {
    pub(crate) code: Vec<u8>,
    /// Offsets in bytes of the instructions that name a map.
    pub(crate) maps: Vec<(u64, &'static str)>,
}

const LOAD_IMMEDIATE: u8 = 0x18;
const CALL: u8 = 0x85;
const EXIT: u8 = 0x95;
const JUMP: u8 = 0x05;
const JUMP_IF_EQUAL: u8 = 0x15;
const JUMP_IF_GREATER: u8 = 0x2d;

impl Assembler {
    fn put(&mut self, opcode: u8, dst: Reg, src: Reg, offset: i16, immediate: i32) {
        let [o0, o1] = offset.to_le_bytes();
        let [i0, i1, i2, i3] = immediate.to_le_bytes();
        self.code.push([opcode, dst.0 | src.0 << 4, o0, o1, i0, i1, i2, i3]);
    }

    /// `dst = src`
    pub(crate) fn copy(&mut self, dst: Reg, src: Reg) {
        self.put(0xbf, dst, src, 0, 0);
    }

    /// `dst = value`
    pub(crate) fn set(&mut self, dst: Reg, value: i32) {
        self.put(0xb7, dst, R0, 0, value);
    }

    /// `dst = value`, 64 bits of it.
    pub(crate) fn set_wide(&mut self, dst: Reg, value: u64) {
        let [low, high] = [value as u32, (value >> 32) as u32];
        self.put(LOAD_IMMEDIATE, dst, R0, 0, low.cast_signed());
        self.put(0, R0, R0, 0, high.cast_signed());
    }

    /// `dst = the map of that name`
    pub(crate) fn set_map(&mut self, dst: Reg, map: &'static str) {
        self.maps.push((self.code.len(), map));
        self.set_wide(dst, 0);
    }

    /// `dst += value`
    pub(crate) fn add(&mut self, dst: Reg, value: i32) {
        self.put(0x07, dst, R0, 0, value);
    }

    /// `dst -= src`
    pub(crate) fn subtract(&mut self, dst: Reg, src: Reg) {
        self.put(0x1f, dst, src, 0, 0);
    }

    /// `dst ^= value`
    pub(crate) fn flip(&mut self, dst: Reg, value: i32) {
        self.put(0xa7, dst, R0, 0, value);
    }

    /// `dst >>= bits`
    pub(crate) fn shift_right(&mut self, dst: Reg, bits: i32) {
        self.put(0x77, dst, R0, 0, bits);
    }

    /// `dst = *(src + offset)`
    pub(crate) fn load(&mut self, size: Size, dst: Reg, src: Reg, offset: i16) {
        self.put(0x61 | size as u8, dst, src, offset, 0);
    }

    /// `*(dst + offset) = src`
    pub(crate) fn store(&mut self, size: Size, dst: Reg, offset: i16, src: Reg) {
        self.put(0x63 | size as u8, dst, src, offset, 0);
    }

    /// `*(dst + offset) = value`
    pub(crate) fn store_value(&mut self, size: Size, dst: Reg, offset: i16, value: i32) {
        self.put(0x62 | size as u8, dst, R0, offset, value);
    }

    /// `r0 = helper(r1, ..)`
    pub(crate) fn call(&mut self, helper: Helper) {
        self.put(CALL, R0, R0, 0, helper as i32);
    }

    /// Ends the program; r0 is its result.
    pub(crate) fn exit(&mut self) {
        self.put(EXIT, R0, R0, 0, 0);
    }

    /// Ends the program with a result.
    pub(crate) fn exit_with(&mut self, value: i32) {
        self.set(R0, value);
        self.exit();
    }

    /// A label to be placed later.
    pub(crate) fn label(&mut self) -> Label {
        self.labels.push(None);
        Label(self.labels.len() - 1)
    }

    /// The label is here.
    pub(crate) fn place(&mut self, label: Label) {
        self.labels[label.0] = Some(self.code.len());
    }

    fn jump_to(&mut self, opcode: u8, dst: Reg, src: Reg, value: i32, label: Label) {
        self.jumps.push((self.code.len(), label));
        self.put(opcode, dst, src, 0, value);
    }

    /// `if dst == value goto label`
    pub(crate) fn jump_if_equal(&mut self, dst: Reg, value: i32, label: Label) {
        self.jump_to(JUMP_IF_EQUAL, dst, R0, value, label);
    }

    /// `if dst > src goto label`
    pub(crate) fn jump_if_greater(&mut self, dst: Reg, src: Reg, label: Label) {
        self.jump_to(JUMP_IF_GREATER, dst, src, 0, label);
    }

    /// `goto label`
    pub(crate) fn jump(&mut self, label: Label) {
        self.jump_to(JUMP, R0, R0, 0, label);
    }

    /// The program with its jumps resolved. A label that was not placed leads behind the program, which the kernel
    /// refuses.
    pub(crate) fn finish(mut self) -> Program {
        for (at, label) in &self.jumps {
            let to = self.labels[label.0].unwrap_or(self.code.len());
            let distance = to as i16 - *at as i16 - 1;
            self.code[*at][2..4].copy_from_slice(&distance.to_le_bytes());
        }
        Program {
            code: self.code.concat(),
            maps: self.maps.into_iter().map(|(at, map)| (at as u64 * 8, map)).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Compared with what `llvm-mc -triple bpfel` writes.
    #[test]
    fn instructions_are_encoded_as_the_specification_says() {
        let mut a = Assembler::default();
        let end = a.label();
        a.load(Size::B4, R7, R1, 4);
        a.copy(R6, R1);
        a.jump_if_greater(R7, R6, end);
        a.set_wide(R1, 0x1122_3344_5566_7788);
        a.store(Size::B8, R7, 8, R1);
        a.store_value(Size::B2, R10, -2, 5);
        a.call(Helper::TailCall);
        a.place(end);
        a.exit_with(1);
        let wanted: [[u8; 8]; 10] = [
            [0x61, 0x17, 4, 0, 0, 0, 0, 0],
            [0xbf, 0x16, 0, 0, 0, 0, 0, 0],
            [0x2d, 0x67, 5, 0, 0, 0, 0, 0],
            [0x18, 0x01, 0, 0, 0x88, 0x77, 0x66, 0x55],
            [0, 0, 0, 0, 0x44, 0x33, 0x22, 0x11],
            [0x7b, 0x17, 8, 0, 0, 0, 0, 0],
            [0x6a, 0x0a, 0xfe, 0xff, 5, 0, 0, 0],
            [0x85, 0, 0, 0, 12, 0, 0, 0],
            [0xb7, 0, 0, 0, 1, 0, 0, 0],
            [0x95, 0, 0, 0, 0, 0, 0, 0],
        ];
        assert_eq!(a.finish().code, wanted.concat());
    }

    #[test]
    fn maps_are_named_by_the_offset_of_their_instruction() {
        let mut a = Assembler::default();
        a.set(R0, 0);
        a.set_map(R1, "counter");
        let program = a.finish();
        assert_eq!((program.code.len(), program.maps), (24, vec![(8, "counter")]));
    }
}
