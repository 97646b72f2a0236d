//! Amounts of memory and of processor time as a manifest writes them: `4GiB`, `0.5`.

use std::fmt;

/// A number of bytes. Never 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(u64);

/// Processor time in thousandths of a core. Never 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cpus(u32);

const UNITS: [(&str, u64); 8] = [
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
    ("KB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
];

/// A number of bytes for people, in the largest unit of which there is at least one: `61.2 MiB`.
pub(crate) fn words(bytes: u64) -> String {
    let units = [("TiB", 1_u64 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    match units.into_iter().find(|(_, factor)| bytes >= *factor) {
        Some((unit, factor)) if bytes.is_multiple_of(factor) => format!("{} {unit}", bytes / factor),
        Some((unit, factor)) => {
            let tenths = u128::from(bytes) * 10 / u128::from(factor);
            format!("{}.{} {unit}", tenths / 10, tenths % 10)
        }
        None => format!("{bytes} bytes"),
    }
}

impl ByteSize {
    /// Reads a whole number and a unit. Why not, to follow the text itself, otherwise.
    pub(crate) fn parse(text: &str) -> Result<Self, &'static str> {
        let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let (number, unit) = text.split_at(digits);
        if digits == 0 {
            return Err("is not an amount of memory");
        }
        let unit = unit.strip_prefix(' ').unwrap_or(unit);
        if unit.is_empty() {
            return Err("has no unit");
        }
        let (_, factor) =
            UNITS.into_iter().find(|(name, _)| *name == unit).ok_or("is not an amount of memory")?;
        match number.parse::<u64>().ok().and_then(|number| number.checked_mul(factor)) {
            Some(0) => Err("is no memory at all"),
            Some(bytes) => Ok(Self(bytes)),
            None => Err("is more than any machine has"),
        }
    }

    /// The number of bytes.
    pub fn bytes(self) -> u64 {
        self.0
    }
}

impl Cpus {
    /// Reads a decimal number above 0 with at most three places.
    pub(crate) fn parse(text: &str) -> Result<Self, &'static str> {
        let (whole, part) = text.split_once('.').unwrap_or((text, "0"));
        let is_number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        if !is_number(whole) || !is_number(part) {
            return Err("is not a number of processors");
        }
        if part.len() > 3 {
            return Err("has more than three decimal places");
        }
        let thousandths =
            format!("{whole}{part:0<3}").parse::<u32>().map_err(|_| "is more than any machine has")?;
        if thousandths == 0 { Err("is no processor at all") } else { Ok(Self(thousandths)) }
    }

    /// Thousandths of a core.
    pub fn thousandths(self) -> u32 {
        self.0
    }
}

/// In the largest unit of 1024 in which it is whole, else of 1000, else in KiB.
impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (binary, decimal) = UNITS.split_at(4);
        let fits = |(_, factor): &&(&str, u64)| self.0.is_multiple_of(*factor);
        match binary.iter().rfind(fits).or_else(|| decimal.iter().rfind(fits)) {
            Some((name, factor)) => write!(f, "{}{name}", self.0 / factor),
            None => write!(f, "{}KiB", self.0 / 1024),
        }
    }
}

impl fmt::Display for Cpus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 % 1000 {
            0 => write!(f, "{}", self.0 / 1000),
            part => write!(f, "{}.{}", self.0 / 1000, format!("{part:03}").trim_end_matches('0')),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_a_unit() {
        for (text, bytes) in
            [("4GiB", 4 << 30), ("512MiB", 512 << 20), ("1KB", 1000), ("2 TB", 2_000_000_000_000)]
        {
            let size = ByteSize::parse(text).expect(text);
            assert_eq!(size.bytes(), bytes);
            assert_eq!(ByteSize::parse(&size.to_string()), Ok(size), "{size}");
        }
        for bad in ["4", "4G", "4g", "0GiB", "GiB", "1.5GiB", "-1GiB", "", "99999999TiB", "4gib", "4  GiB"] {
            assert!(ByteSize::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn processors_are_a_decimal_number() {
        for (text, thousandths) in [("2", 2000), ("0.5", 500), ("1.25", 1250), ("0.001", 1)] {
            let cpus = Cpus::parse(text).expect(text);
            assert_eq!(cpus.thousandths(), thousandths);
            assert_eq!(cpus.to_string(), text);
        }
        for bad in ["0", "0.0", "", ".5", "1.", "-1", "1e3", "0.0001", "99999999999", "two"] {
            assert!(Cpus::parse(bad).is_err(), "{bad}");
        }
    }
}
