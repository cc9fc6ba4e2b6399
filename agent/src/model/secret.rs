//! Values that must not be shown.

use std::{borrow::Cow, fmt, path::PathBuf};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de, ser::SerializeMap};

/// Shown in place of a secret.
const REDACTED: &str = "<redacted>";

/// Where a secret is to be read from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reference {
    /// An environment variable: `{ env: NAME }`.
    Env(String),
    /// A file, whose content without trailing line ends is the secret: `{ file: PATH }`.
    File(PathBuf),
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reference::Env(name) => write!(f, "environment variable {name}"),
            Reference::File(path) => write!(f, "file {}", path.display()),
        }
    }
}

/// A secret: its value, or where to read it. `Debug` and `Serialize` never show a value.
///
/// A configuration may hold a reference; [`Secret::resolve`] reads it before anything uses the secret. The two stay apart, so that a
/// resolved secret still serialises as its reference.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret {
    reference: Option<Reference>,
    value: Option<Box<str>>,
}

impl Secret {
    /// A secret whose value is known.
    pub fn from_value(value: impl Into<Box<str>>) -> Secret {
        Secret { reference: None, value: Some(value.into()) }
    }

    /// A secret that is still to be read.
    pub fn from_reference(reference: Reference) -> Secret {
        Secret { reference: Some(reference), value: None }
    }

    /// Where it is read from; `None` if the value stood in the configuration itself.
    pub fn reference(&self) -> Option<&Reference> {
        self.reference.as_ref()
    }

    /// Reads the value through `read` if it is only a reference so far.
    pub fn resolve<E>(&mut self, read: impl FnOnce(&Reference) -> Result<String, E>) -> Result<(), E> {
        if let (None, Some(reference)) = (&self.value, &self.reference) {
            self.value = Some(read(reference)?.into());
        }
        Ok(())
    }

    /// The value, to be handed to what needs it and to nothing else; `None` while it is an unresolved reference.
    pub fn expose(&self) -> Option<&str> {
        self.value.as_deref()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.reference {
            Some(reference) => write!(f, "Secret({reference})"),
            None => write!(f, "Secret({REDACTED})"),
        }
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Some(reference) = &self.reference else {
            return serializer.serialize_str(REDACTED);
        };
        let mut map = serializer.serialize_map(Some(1))?;
        match reference {
            Reference::Env(name) => map.serialize_entry("env", name)?,
            Reference::File(path) => map.serialize_entry("file", &path.to_string_lossy())?,
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Secret, D::Error> {
        struct Visitor;

        impl<'de> de::Visitor<'de> for Visitor {
            type Value = Secret;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text, `{ env: NAME }` or `{ file: PATH }`")
            }

            fn visit_str<E: de::Error>(self, value: &str) -> Result<Secret, E> {
                Ok(Secret::from_value(value))
            }

            // The default implementations of the next four would put the value into the error's text.
            fn visit_bool<E: de::Error>(self, _: bool) -> Result<Secret, E> {
                Err(E::invalid_type(de::Unexpected::Other("boolean (quote it to make it a text)"), &self))
            }

            fn visit_i64<E: de::Error>(self, _: i64) -> Result<Secret, E> {
                Err(E::invalid_type(de::Unexpected::Other("number (quote it to make it a text)"), &self))
            }

            fn visit_u64<E: de::Error>(self, _: u64) -> Result<Secret, E> {
                self.visit_i64(0)
            }

            fn visit_f64<E: de::Error>(self, _: f64) -> Result<Secret, E> {
                self.visit_i64(0)
            }

            fn visit_map<A: de::MapAccess<'de>>(self, mut map: A) -> Result<Secret, A::Error> {
                #[derive(Deserialize)]
                #[serde(field_identifier, rename_all = "lowercase")]
                enum Key {
                    Env,
                    File,
                }
                let reference = match map.next_key()? {
                    Some(Key::Env) => Reference::Env(map.next_value()?),
                    Some(Key::File) => Reference::File(map.next_value()?),
                    None => return Err(de::Error::invalid_length(0, &self)),
                };
                match map.next_key::<Key>()? {
                    None => Ok(Secret::from_reference(reference)),
                    Some(_) => Err(de::Error::custom("a secret is read from one place: either `env` or `file`")),
                }
            }
        }

        deserializer.deserialize_any(Visitor)
    }
}

impl JsonSchema for Secret {
    fn schema_name() -> Cow<'static, str> {
        "Secret".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let reference = |key: &str, what: &str| {
            json_schema!({
                "type": "object",
                "properties": { key: { "type": "string", "description": what } },
                "required": [key],
                "additionalProperties": false
            })
        };
        json_schema!({
            "description": "A secret: its value, or better where to read it.",
            "anyOf": [
                { "type": "string" },
                reference("env", "Environment variable that holds it."),
                reference("file", "File that holds it."),
            ]
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_value_is_never_shown() {
        let secret: Secret = serde_json::from_str("\"hunter2\"").unwrap();
        assert_eq!(secret.expose(), Some("hunter2"));
        assert!(!format!("{secret:?} {secret:#?}").contains("hunter2"));
        assert!(!serde_json::to_string(&secret).unwrap().contains("hunter2"));
    }

    #[test]
    fn a_value_of_a_wrong_type_is_not_shown_either() {
        for text in ["123456", "-123456", "1234.56", "true", "[\"123456\"]"] {
            let error = serde_json::from_str::<Secret>(text).unwrap_err().to_string();
            assert!(!error.contains("1234") && !error.contains("true"), "{error}");
        }
    }

    #[test]
    fn references_are_resolved_once_and_serialise_as_themselves() {
        let mut secret: Secret = serde_json::from_str(r#"{"env":"NEW_RELIC_LICENSE_KEY"}"#).unwrap();
        assert_eq!(secret.expose(), None);
        let read = |reference: &Reference| {
            assert_eq!(*reference, Reference::Env("NEW_RELIC_LICENSE_KEY".into()));
            Ok::<_, ()>("hunter2".to_owned())
        };
        secret.resolve(read).unwrap();
        secret.resolve(|_| Err("read twice")).unwrap();
        assert_eq!(secret.expose(), Some("hunter2"));
        assert_eq!(serde_json::to_string(&secret).unwrap(), r#"{"env":"NEW_RELIC_LICENSE_KEY"}"#);
        assert!(!format!("{secret:?}").contains("hunter2"));
        let file: Secret = serde_json::from_str(r#"{"file":"/run/secrets/key"}"#).unwrap();
        assert_eq!(file.reference(), Some(&Reference::File("/run/secrets/key".into())));
    }

    #[test]
    fn a_wrong_reference_is_refused() {
        for text in ["{}", r#"{"env":"A","file":"B"}"#, r#"{"vault":"A"}"#, "null"] {
            assert!(serde_json::from_str::<Secret>(text).is_err(), "{text}");
        }
    }
}
