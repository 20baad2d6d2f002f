//! Enums whose variants have a word each. The word stands once, at the variant: requests, the store, the views, the
//! value lists of the command line and the error messages all use it.

/// Defines an enum with the word of each variant.
macro_rules! words {
    (
        $(#[$attribute:meta])*
        $visibility:vis enum $name:ident {
            $($(#[$of_variant:meta])* $variant:ident = $word:literal),+ $(,)?
        }
    ) => {
        $(#[$attribute])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
        $visibility enum $name {
            $($(#[$of_variant])* #[serde(rename = $word)] $variant),+
        }

        impl $name {
            /// All variants, in their order.
            pub const ALL: [Self; Self::WORDS.len()] = [$(Self::$variant),+];

            /// The words of all variants.
            pub const WORDS: &'static [&'static str] = &[$($word),+];

            /// The variant that a word names.
            pub fn parse(word: &str) -> Option<Self> {
                match word {
                    $($word => Some(Self::$variant),)+
                    _ => None,
                }
            }

            /// The word of this variant.
            pub fn word(self) -> &'static str {
                match self {
                    $(Self::$variant => $word),+
                }
            }
        }
    };
}
pub(crate) use words;
