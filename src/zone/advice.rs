//! What to write instead of a time zone that is not known.
//!
//! A wrong guess is an error of hours that nobody notices. So names are guessed only where little
//! else can be meant, and abbreviations, which several places share, never stand for a zone.

use crate::invalid::quoted;

/// Abbreviations that people write, and a place that each of them may mean.
const ABBREVIATIONS: [(&str, &str); 62] = [
    ("ACDT", "Australia/Adelaide"),
    ("ACST", "Australia/Adelaide"),
    ("ADT", "America/Halifax"),
    ("AEDT", "Australia/Sydney"),
    ("AEST", "Australia/Sydney"),
    ("AKDT", "America/Anchorage"),
    ("AKST", "America/Anchorage"),
    ("ART", "America/Argentina/Buenos_Aires"),
    ("AST", "America/Halifax"),
    ("AWST", "Australia/Perth"),
    ("BRT", "America/Sao_Paulo"),
    ("BST", "Europe/London"),
    ("CAT", "Africa/Maputo"),
    ("CDT", "America/Chicago"),
    ("CEST", "Europe/Berlin"),
    ("CLST", "America/Santiago"),
    ("CLT", "America/Santiago"),
    ("COT", "America/Bogota"),
    ("CST", "America/Chicago or Asia/Shanghai"),
    ("EAT", "Africa/Nairobi"),
    ("ECT", "America/Guayaquil"),
    ("EDT", "America/New_York"),
    ("EEST", "Europe/Helsinki"),
    ("ET", "America/New_York"),
    ("CT", "America/Chicago"),
    ("MT", "America/Denver"),
    ("PT", "America/Los_Angeles"),
    ("GST", "Asia/Dubai"),
    ("HDT", "America/Adak"),
    ("HKT", "Asia/Hong_Kong"),
    ("ICT", "Asia/Bangkok"),
    ("IDT", "Asia/Jerusalem"),
    ("IRST", "Asia/Tehran"),
    ("IST", "Asia/Kolkata, Europe/Dublin or Asia/Jerusalem"),
    ("JST", "Asia/Tokyo"),
    ("KST", "Asia/Seoul"),
    ("MDT", "America/Denver"),
    ("MEST", "Europe/Berlin"),
    ("MESZ", "Europe/Berlin"),
    ("MEZ", "Europe/Berlin"),
    ("MSK", "Europe/Moscow"),
    ("MYT", "Asia/Kuala_Lumpur"),
    ("NDT", "America/St_Johns"),
    ("NPT", "Asia/Kathmandu"),
    ("NST", "America/St_Johns"),
    ("NZDT", "Pacific/Auckland"),
    ("NZST", "Pacific/Auckland"),
    ("PDT", "America/Los_Angeles"),
    ("PET", "America/Lima"),
    ("PHT", "Asia/Manila"),
    ("PKT", "Asia/Karachi"),
    ("PST", "America/Los_Angeles"),
    ("SAST", "Africa/Johannesburg"),
    ("SGT", "Asia/Singapore"),
    ("SST", "Pacific/Pago_Pago"),
    ("TRT", "Europe/Istanbul"),
    ("UYT", "America/Montevideo"),
    ("VET", "America/Caracas"),
    ("WAT", "Africa/Lagos"),
    ("WEST", "Europe/Lisbon"),
    ("WIB", "Asia/Jakarta"),
    ("UZT", "Asia/Tashkent"),
];
/// Longest word that is taken for an abbreviation.
const ABBREVIATION_LETTERS_MAX: usize = 5;
/// Shortest name that is compared with similar ones.
const SIMILAR_LETTERS_MIN: usize = 6;
/// Longest name that is compared with similar ones.
const SIMILAR_LETTERS_MAX: usize = 64;
/// Areas whose names end with no city, such as US/Eastern.
const NOT_OF_CITIES: [&str; 6] = ["Brazil", "Canada", "Chile", "Etc", "Mexico", "US"];
const FORMS: &str = "a name such as Europe/Berlin, an offset such as +05:30, or UTC";

/// Why a text is not a time zone, and what to write instead.
pub(super) fn unknown(text: &str) -> String {
    let trimmed = text.trim_matches(|c: char| c.is_whitespace() || matches!(c, '"' | '\''));
    let lower = trimmed.to_lowercase();
    if lower.is_empty() {
        return format!(
            "a time zone cannot be empty: leave it out for the default, or give {FORMS}"
        );
    }
    if trimmed != text && super::Zone::parse(trimmed).is_ok() {
        return format!("{} has quotes or spaces around it: write {trimmed}", quoted(text));
    }
    if ["local", "localtime", "system", "default"].contains(&lower.as_str()) {
        let leave_out = "leave the time zone out for the scheduler's own";
        return format!("{} is not a time zone: {leave_out}, or give {FORMS}", quoted(text));
    }
    if lower == "z" || lower == "zulu" {
        return format!("{} is not a time zone: write UTC", quoted(text));
    }
    if let Some(offset) = offset(trimmed) {
        return format!("{} is not a time zone: write {offset}", quoted(text));
    }
    if let Some(place) = place_of_abbreviation(trimmed) {
        return format!("{trimmed} is an abbreviation: name a place, such as {place}");
    }
    let near = place_with_city(&lower).or_else(|| similar(&lower));
    let near = near
        .map_or_else(|| format!("expected {FORMS}"), |near| format!("did you mean \"{near}\"?"));
    format!("unknown time zone {} ({near})", quoted(text))
}

/// A distance from UTC in another form than `+05:30`, in that form: `+5`, `+0530`, `5:30`, `UTC+3`, `GMT-03:00`.
pub(super) fn offset(text: &str) -> Option<String> {
    let upper = text.to_uppercase();
    let rest = upper.strip_prefix("UTC").or_else(|| upper.strip_prefix("GMT")).unwrap_or(&upper);
    let rest = rest.trim_start();
    let (sign, digits) = match rest.strip_prefix(['-', '\u{2212}']) {
        Some(digits) => ('-', digits),
        None => ('+', rest.strip_prefix('+').unwrap_or(rest)),
    };
    let is_signed = digits.len() < rest.len();
    let (hours, minutes) = match digits.split_once(':') {
        Some(parts) => parts,
        None if is_signed && digits.len() > 2 => digits.split_at_checked(digits.len() - 2)?,
        None if is_signed => (digits, "00"),
        None => return None,
    };
    let (hours, minutes) = (super::whole(hours)?, super::whole(minutes)?);
    let offset = format!("{sign}{hours:02}:{minutes:02}");
    super::parse_offset(&offset).map(|_| offset)
}

fn place_of_abbreviation(word: &str) -> Option<&'static str> {
    let upper = word.to_uppercase();
    let known = ABBREVIATIONS.iter().find(|(name, _)| *name == upper);
    if let Some((_, place)) = known {
        return Some(place);
    }
    let is_word = word.bytes().all(|byte| byte.is_ascii_uppercase());
    ((2..=ABBREVIATION_LETTERS_MAX).contains(&word.len()) && is_word).then_some("Europe/Berlin")
}

/// The zone whose last part is this: `Berlin`, `new york`.
fn place_with_city(lower: &str) -> Option<&'static str> {
    let wanted = lower.replace(' ', "_");
    let mut names = chrono_tz::TZ_VARIANTS.iter().map(|zone| zone.name());
    names.find(|name| city(name).is_some_and(|city| city.eq_ignore_ascii_case(&wanted)))
}

fn city(name: &str) -> Option<&str> {
    let (area, city) = name.rsplit_once('/')?;
    (!NOT_OF_CITIES.contains(&area)).then_some(city)
}

/// The name that differs least from this, if it differs by little for its length.
fn similar(lower: &str) -> Option<&'static str> {
    let letters = lower.chars().filter(|c| c.is_alphabetic()).count();
    if letters < SIMILAR_LETTERS_MIN || lower.len() > SIMILAR_LETTERS_MAX {
        return None;
    }
    let distance = |name: &'static str| {
        let compared = if lower.contains('/') { Some(name) } else { city(name) };
        Some((edit_distance(lower, &compared?.to_lowercase()), name))
    };
    let names = chrono_tz::TZ_VARIANTS.iter().map(|zone| zone.name());
    let (least, name) = names.filter_map(distance).min()?;
    (least <= letters / 5).then_some(name)
}

/// Insertions, deletions and replacements between two words.
fn edit_distance(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (number, letter) in left.chars().enumerate() {
        let mut next = vec![number + 1];
        for ((other, above), corner) in right.iter().zip(row.iter().skip(1)).zip(&row) {
            let left = next.last().copied().unwrap_or(0);
            next.push((corner + usize::from(letter != *other)).min(left + 1).min(above + 1));
        }
        row = next;
    }
    row.last().copied().unwrap_or(0)
}
