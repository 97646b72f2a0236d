//! Schedules in the five fields of cron, in UTC.
//!
//! Small enough to be our own: a set of values for each field. Two rules of cron are easy to get
//! wrong: Sunday is both 0 and 7, and where both days are restricted either of them suffices.

use std::fmt;

/// A checked schedule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schedule {
    source: String,
    minutes: u64,
    hours: u64,
    days: u64,
    months: u64,
    weekdays: u64,
    /// True where both kinds of days are restricted, so that either of them suffices.
    either_day: bool,
}

/// A minute, as far as a schedule looks at it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Minute {
    /// 0 to 59.
    pub minute: u8,
    /// 0 to 23.
    pub hour: u8,
    /// 1 to 31.
    pub day: u8,
    /// 1 to 12.
    pub month: u8,
    /// 0 (Sunday) to 6.
    pub weekday: u8,
}

/// One of the five fields.
struct Field {
    name: &'static str,
    from: u32,
    to: u32,
    /// Words for the values from `from` on.
    words: &'static [&'static str],
}

const FIELDS: [Field; 5] = [
    Field { name: "minute", from: 0, to: 59, words: &[] },
    Field { name: "hour", from: 0, to: 23, words: &[] },
    Field { name: "day of the month", from: 1, to: 31, words: &[] },
    Field {
        name: "month",
        from: 1,
        to: 12,
        words: &["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"],
    },
    Field {
        name: "day of the week",
        from: 0,
        to: 7,
        words: &["sun", "mon", "tue", "wed", "thu", "fri", "sat"],
    },
];

const SHORT: [(&str, &str); 6] = [
    ("@hourly", "0 * * * *"),
    ("@daily", "0 0 * * *"),
    ("@weekly", "0 0 * * 0"),
    ("@monthly", "0 0 1 * *"),
    ("@yearly", "0 0 1 1 *"),
    ("@annually", "0 0 1 1 *"),
];

/// The days of the months, in a leap year.
const DAYS: [u32; 12] = [31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];

impl Schedule {
    /// Reads a schedule. Otherwise: what is wrong, in words.
    pub fn parse(text: &str) -> Result<Self, String> {
        let expanded = SHORT.iter().find(|(short, _)| *short == text).map_or(text, |(_, long)| long);
        let parts: Vec<&str> = expanded.split_ascii_whitespace().collect();
        let [minute, hour, day, month, weekday] = parts.as_slice() else {
            return Err(format!("it has {} fields, and a schedule has five", parts.len()));
        };
        let mut sets = [0; 5];
        for ((set, field), text) in sets.iter_mut().zip(&FIELDS).zip([minute, hour, day, month, weekday]) {
            *set = field.parse(text)?;
        }
        let [minutes, hours, days, months, mut weekdays] = sets;
        weekdays = (weekdays | weekdays >> 7) & 0x7f;
        let either_day = !day.starts_with('*') && !weekday.starts_with('*');
        let schedule = Self { source: text.to_owned(), minutes, hours, days, months, weekdays, either_day };
        if schedule.has_a_day() {
            Ok(schedule)
        } else {
            Err("no month that it names has such a day".to_owned())
        }
    }

    /// True for a minute at which it is due.
    pub fn is_due(&self, at: Minute) -> bool {
        has(self.minutes, at.minute) && has(self.hours, at.hour) && self.is_due_on(at)
    }

    /// True where it is due at some time of the minute's day.
    pub fn is_due_on(&self, at: Minute) -> bool {
        let (day, weekday) = (has(self.days, at.day), has(self.weekdays, at.weekday));
        let on_day = if self.either_day { day || weekday } else { day && weekday };
        has(self.months, at.month) && on_day
    }

    fn has_a_day(&self) -> bool {
        self.either_day
            || (1..=12)
                .zip(DAYS)
                .any(|(month, last)| self.months >> month & 1 == 1 && self.days.trailing_zeros() <= last)
    }
}

fn has(set: u64, value: u8) -> bool {
    set >> value & 1 == 1
}

impl Field {
    fn parse(&self, text: &str) -> Result<u64, String> {
        text.split(',').try_fold(0, |set, part| Ok(set | self.part(part)?))
    }

    fn part(&self, text: &str) -> Result<u64, String> {
        let (range, step) = match text.split_once('/') {
            Some((range, step)) => (range, Some(step)),
            None => (text, None),
        };
        let step = match step.map(str::parse::<u32>) {
            None => 1,
            Some(Ok(step @ 1..=59)) => step,
            Some(_) => return Err(format!("the {} `{text}` has a bad step", self.name)),
        };
        let (from, to) = match range.split_once('-') {
            _ if range == "*" => (self.from, self.to - u32::from(self.to == 7)),
            Some((from, to)) => (self.value(from)?, self.value(to)?),
            None if text.contains('/') => (self.value(range)?, self.to),
            None => (self.value(range)?, self.value(range)?),
        };
        if from > to {
            return Err(format!("the {} `{text}` runs backwards", self.name));
        }
        Ok((from..=to)
            .filter(|value| (value - from).is_multiple_of(step))
            .fold(0, |set, value| set | 1 << value))
    }

    fn value(&self, text: &str) -> Result<u32, String> {
        let word = self.words.iter().position(|word| text.eq_ignore_ascii_case(word));
        let word = word.and_then(|at| u32::try_from(at).ok()).map(|at| at + self.from);
        let is_number = !text.is_empty() && text.len() <= 2 && text.bytes().all(|b| b.is_ascii_digit());
        word.or_else(|| text.parse().ok().filter(|_| is_number))
            .filter(|value| (self.from..=self.to).contains(value))
            .ok_or_else(|| format!("`{text}` is no {} ({} to {})", self.name, self.from, self.to))
    }
}

/// The schedule as it was written.
impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.source)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn due(schedule: &str, minute: u8, hour: u8, day: u8, month: u8, weekday: u8) -> bool {
        Schedule::parse(schedule).expect(schedule).is_due(Minute { minute, hour, day, month, weekday })
    }

    #[test]
    fn a_schedule_is_due_in_its_minutes() {
        assert!(due("0 3 * * *", 0, 3, 9, 9, 2) && !due("0 3 * * *", 1, 3, 9, 9, 2));
        assert!(due("*/15 * * * *", 45, 1, 1, 1, 1) && !due("*/15 * * * *", 46, 1, 1, 1, 1));
        assert!(due("0 8-18/2 * * mon-fri", 0, 10, 1, 1, 5) && !due("0 8-18/2 * * mon-fri", 0, 10, 1, 1, 6));
        assert!(due("0 0 * * 7", 0, 0, 1, 1, 0) && due("0 0 * JAN,feb 0", 0, 0, 1, 2, 0));
        assert!(due("@weekly", 0, 0, 1, 1, 0) && !due("@weekly", 0, 0, 1, 1, 1));
        assert!(due("5/20 * * * *", 45, 0, 1, 1, 1));
    }

    #[test]
    fn either_day_suffices_where_both_are_named() {
        assert!(due("0 0 13 * fri", 0, 0, 13, 1, 1) && due("0 0 13 * fri", 0, 0, 12, 1, 5));
        assert!(!due("0 0 13 * fri", 0, 0, 12, 1, 1));
        assert!(!due("0 0 13 * *", 0, 0, 12, 1, 5));
    }

    #[test]
    fn what_is_no_schedule_says_why() {
        for bad in [
            "",
            "* * * *",
            "* * * * * *",
            "60 * * * *",
            "* 24 * * *",
            "* * 0 * *",
            "* * * 13 *",
            "* * * * 8",
            "a * * * *",
            "5-1 * * * *",
            "*/0 * * * *",
            "*/x * * * *",
            "1,,2 * * * *",
            "0 0 31 feb *",
            "0 0 30 2 *",
            "@often",
            "-1 * * * *",
            "1- * * * *",
            "100 * * * *",
            "0 3 * * mon-",
        ] {
            assert!(Schedule::parse(bad).is_err(), "{bad}");
        }
        assert!(Schedule::parse("0 0 29 2 *").is_ok() && Schedule::parse("0 0 31 2 mon").is_ok());
    }
}
