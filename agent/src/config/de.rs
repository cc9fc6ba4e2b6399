//! A serde deserializer over the tree. The target type decides how a scalar is read, whether a reference may stand in its place,
//! and what an error says was expected. Errors know their node and never hold a value.

use std::{borrow::Cow, fmt};

use serde::de::{
    self, DeserializeSeed, Deserializer, EnumAccess, Expected, IntoDeserializer, MapAccess, SeqAccess, Unexpected,
    VariantAccess, Visitor, value::StrDeserializer,
};

use super::{
    lookup::Lookup,
    suggest,
    tree::{Entry, Node, NodeId, Type, Value},
};

/// From this length on a text is taken out of errors; what is shorter is no secret, and would be found within words.
const SECRET_BYTES: usize = 4;

/// Takes `text` out of `reason`, and the parts of it that stand there in backticks.
fn hide(reason: &mut String, text: &str) {
    if text.len() < SECRET_BYTES {
        return;
    }
    let whole = text.to_lowercase();
    let part = |quoted: &str| quoted.len() >= SECRET_BYTES && whole.contains(&quoted.to_lowercase());
    let replaced = reason.replace(text, "…");
    let parts = replaced.split('`').enumerate();
    // Between the first and second backtick, the third and fourth, ...
    *reason =
        parts.map(|(at, piece)| if at % 2 == 1 && part(piece) { "…" } else { piece }).collect::<Vec<_>>().join("`");
}

/// Why a node cannot be what the configuration needs there.
#[derive(Debug)]
pub(super) struct Error {
    /// Where; set by the innermost node that the error passes.
    pub(super) node: Option<NodeId>,
    pub(super) kind: Kind,
}

/// What is wrong.
#[derive(Debug)]
pub(super) enum Kind {
    /// The node's key is not known; these are.
    UnknownKey(&'static [&'static str]),
    /// The node has no such key.
    MissingKey(&'static str),
    /// The value is no whole number, or none within the range of its type.
    Integer { found: Option<Type>, min: i128, max: i128 },
    /// The value does not fit; the text is ours.
    Value { reason: String, hint: Option<String> },
    /// The value does not fit; the text is of the type that was to be read.
    Custom(String),
}

impl Error {
    fn value(reason: impl Into<String>, hint: Option<String>) -> Error {
        Error { node: None, kind: Kind::Value { reason: reason.into(), hint } }
    }

    fn expected(expected: impl fmt::Display, found: Type) -> Error {
        Error::value(format!("expected {expected}, found {found}"), None)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            Kind::UnknownKey(_) => f.write_str("unknown key"),
            Kind::MissingKey(key) => write!(f, "lacks the key `{key}`"),
            Kind::Integer { min, max, .. } => write!(f, "expected a whole number from {min} to {max}"),
            Kind::Value { reason, .. } | Kind::Custom(reason) => f.write_str(reason),
        }
    }
}

impl std::error::Error for Error {}

/// The constructors that serde's own implementations call: theirs would show the value.
impl de::Error for Error {
    fn custom<T: fmt::Display>(message: T) -> Error {
        Error { node: None, kind: Kind::Custom(message.to_string()) }
    }

    fn invalid_type(unexpected: Unexpected<'_>, expected: &dyn Expected) -> Error {
        let found = match unexpected {
            Unexpected::Other(found) => return Error::value(format!("expected {expected}, found {found}"), None),
            Unexpected::Bool(_) => Type::Boolean,
            Unexpected::Unsigned(_) | Unexpected::Signed(_) => Type::Integer,
            Unexpected::Float(_) => Type::Float,
            Unexpected::Unit | Unexpected::Option => Type::Null,
            Unexpected::Seq => Type::List,
            Unexpected::Map => Type::Map,
            _ => Type::String,
        };
        Error::expected(expected, found)
    }

    fn invalid_value(_: Unexpected<'_>, expected: &dyn Expected) -> Error {
        Error::value(format!("not allowed: expected {expected}"), None)
    }

    fn invalid_length(length: usize, expected: &dyn Expected) -> Error {
        Error::value(format!("has {length} items: expected {expected}"), None)
    }

    fn unknown_variant(_: &str, expected: &'static [&'static str]) -> Error {
        Error::value("not an allowed value", Some(suggest::allowed(None, expected)))
    }

    fn unknown_field(_: &str, expected: &'static [&'static str]) -> Error {
        Error { node: None, kind: Kind::UnknownKey(expected) }
    }

    fn missing_field(field: &'static str) -> Error {
        Error { node: None, kind: Kind::MissingKey(field) }
    }

    fn duplicate_field(field: &'static str) -> Error {
        Error::value(format!("the key `{field}` stands twice"), None)
    }
}

/// Reads the tree beneath `node`.
#[derive(Clone, Copy)]
pub(super) struct NodeDeserializer<'a> {
    node: &'a Node,
    lookup: &'a dyn Lookup,
}

/// A scalar, or what the reference in its place leads to.
struct Scalar<'a> {
    text: Cow<'a, str>,
    /// Type by YAML's rules; `None` for a reference's value, which has none and is read as its target needs.
    kind: Option<Type>,
}

impl Scalar<'_> {
    fn may_be(&self, kind: Type) -> bool {
        self.kind.is_none_or(|own| own == kind)
    }

    fn found(&self) -> Type {
        self.kind.unwrap_or(Type::String)
    }
}

impl<'a> NodeDeserializer<'a> {
    pub(super) fn new(node: &'a Node, lookup: &'a dyn Lookup) -> NodeDeserializer<'a> {
        NodeDeserializer { node, lookup }
    }

    /// `error` with this node as its place, unless it came from deeper within. Types like to repeat in their errors what they could
    /// not read; that is taken out, since it may be a secret at the wrong key.
    fn fail(self, mut error: Error) -> Error {
        if error.node.is_none() {
            error.node = Some(self.node.id);
            if let (Kind::Custom(reason), Ok(scalar)) = (&mut error.kind, self.scalar("")) {
                hide(reason, &scalar.text);
            }
        }
        error
    }

    /// The scalar that stands here or is referred to.
    fn scalar(self, expected: impl fmt::Display) -> Result<Scalar<'a>, Error> {
        if let Value::Scalar { text, .. } = &self.node.value {
            if text.starts_with("${") && text.ends_with('}') {
                let hint = "write `{ env: NAME }`".to_owned();
                return Err(Error::value("`${...}` is not replaced here", Some(hint)));
            }
            return Ok(Scalar { text: text.into(), kind: Some(self.node.kind()) });
        }
        let Some((place, name)) = self.node.reference() else {
            return Err(Error::expected(expected, self.node.kind()));
        };
        let Value::Scalar { text, .. } = &name.value else {
            return Err(Error::expected("a name after `env` or `file`", name.kind()));
        };
        match place.resolve(text, self.lookup) {
            Ok(text) => Ok(Scalar { text: text.into(), kind: None }),
            Err(reason) => Err(Error::value(reason, None)),
        }
    }

    fn integer<T: TryFrom<i128> + Into<i128>>(self, min: T, max: T) -> Result<T, Error> {
        let (min, max) = (min.into(), max.into());
        let error = |found| Error { node: None, kind: Kind::Integer { found, min, max } };
        if self.node.kind() == Type::List || (self.node.kind() == Type::Map && self.node.reference().is_none()) {
            return Err(error(Some(self.node.kind())));
        }
        let scalar = self.scalar("a whole number")?;
        if !scalar.may_be(Type::Integer) {
            return Err(error(scalar.kind));
        }
        let text = scalar.text.trim();
        let parsed = text.parse::<i128>().ok().and_then(|number| T::try_from(number).ok());
        parsed.ok_or_else(|| error(Some(Type::of_plain(text)).filter(|found| *found != Type::Integer)))
    }

    fn boolean(self) -> Result<bool, Error> {
        let scalar = self.scalar("true or false")?;
        match &*scalar.text {
            "true" | "True" | "TRUE" if scalar.may_be(Type::Boolean) => Ok(true),
            "false" | "False" | "FALSE" if scalar.may_be(Type::Boolean) => Ok(false),
            _ => Err(Error::expected("true or false", scalar.found())),
        }
    }

    fn float(self) -> Result<f64, Error> {
        let scalar = self.scalar("a number")?;
        if !scalar.may_be(Type::Float) && !scalar.may_be(Type::Integer) {
            return Err(Error::expected("a number", scalar.found()));
        }
        let parsed = scalar.text.trim().parse::<f64>().ok().filter(|number| number.is_finite());
        parsed.ok_or_else(|| Error::value("expected a number", None))
    }

    fn string(self, expected: impl fmt::Display) -> Result<Cow<'a, str>, Error> {
        let scalar = self.scalar(&expected)?;
        if scalar.may_be(Type::String) {
            return Ok(scalar.text);
        }
        let any_text = expected.to_string() == "a string" && scalar.found() != Type::Null;
        let hint = any_text.then(|| "put it in quotes".into());
        Err(Error::value(format!("expected {expected}, found {}", scalar.found()), hint))
    }

    /// Items of a list; nothing at all is an empty one.
    fn items(self) -> Option<&'a [Node]> {
        match &self.node.value {
            Value::List(items) => Some(items),
            _ if self.node.kind() == Type::Null => Some(&[]),
            _ => None,
        }
    }

    /// Entries of a map; nothing at all is an empty one, as a section is whose keys are all commented out.
    fn entries(self) -> Option<&'a [Entry]> {
        match &self.node.value {
            Value::Map(entries) => Some(entries),
            _ if self.node.kind() == Type::Null => Some(&[]),
            _ => None,
        }
    }
}

/// What a visitor says that it expects.
struct Wanted<'v>(&'v dyn Expected);

impl fmt::Display for Wanted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

macro_rules! integers {
    ($($method:ident $visit:ident $type:ident),*) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
            let number = self.integer($type::MIN, $type::MAX).map_err(|error| self.fail(error))?;
            visitor.$visit(number).map_err(|error: Error| self.fail(error))
        })*
    };
}

impl<'de> Deserializer<'de> for NodeDeserializer<'de> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.node.kind() {
            Type::Null => visitor.visit_unit().map_err(|error: Error| self.fail(error)),
            Type::Boolean => self.deserialize_bool(visitor),
            Type::Integer => match self.integer(i64::MIN, i64::MAX) {
                Ok(number) => visitor.visit_i64(number).map_err(|error: Error| self.fail(error)),
                Err(_) => self.deserialize_f64(visitor),
            },
            Type::Float => self.deserialize_f64(visitor),
            Type::String => self.deserialize_str(visitor),
            Type::List => self.deserialize_seq(visitor),
            Type::Map if self.node.reference().is_some() => self.deserialize_str(visitor),
            Type::Map => self.deserialize_map(visitor),
        }
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let boolean = self.boolean().map_err(|error| self.fail(error))?;
        visitor.visit_bool(boolean).map_err(|error: Error| self.fail(error))
    }

    integers! {
        deserialize_i8 visit_i8 i8, deserialize_i16 visit_i16 i16, deserialize_i32 visit_i32 i32,
        deserialize_i64 visit_i64 i64, deserialize_u8 visit_u8 u8, deserialize_u16 visit_u16 u16,
        deserialize_u32 visit_u32 u32, deserialize_u64 visit_u64 u64
    }

    fn deserialize_f32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_f64(visitor)
    }

    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let number = self.float().map_err(|error| self.fail(error))?;
        visitor.visit_f64(number).map_err(|error: Error| self.fail(error))
    }

    fn deserialize_char<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_str(visitor)
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let text = self.string(Wanted(&visitor)).map_err(|error| self.fail(error))?;
        visitor.visit_str(&text).map_err(|error: Error| self.fail(error))
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_str(visitor)
    }

    fn deserialize_bytes<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_str(visitor)
    }

    fn deserialize_byte_buf<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_str(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let value = match self.node.kind() {
            Type::Null => visitor.visit_none(),
            _ => visitor.visit_some(self),
        };
        value.map_err(|error: Error| self.fail(error))
    }

    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.node.kind() {
            Type::Null => visitor.visit_unit(),
            found => Err(Error::expected("nothing", found)),
        }
        .map_err(|error: Error| self.fail(error))
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_unit(visitor)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self).map_err(|error: Error| self.fail(error))
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.items() {
            Some(items) => visitor.visit_seq(Items { items: items.iter(), lookup: self.lookup }),
            None => Err(Error::expected("a list", self.node.kind())),
        }
        .map_err(|error: Error| self.fail(error))
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: usize,
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.entries() {
            Some(entries) => visitor.visit_map(Entries { entries: entries.iter(), value: None, lookup: self.lookup }),
            None => Err(Error::expected("a map", self.node.kind())),
        }
        .map_err(|error: Error| self.fail(error))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        keys: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        match self.entries() {
            Some(_) => self.deserialize_map(visitor),
            None => {
                let hint = format!("keys: {}", keys.join(", "));
                let reason = format!("expected a map, found {}", self.node.kind());
                Err(self.fail(Error::value(reason, Some(hint))))
            }
        }
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        let value = match &self.node.value {
            Value::Map(entries) if self.node.reference().is_none() => match entries.as_slice() {
                [Entry { key, node, .. }] if variants.contains(&key.as_str()) && !node.left_out => {
                    visitor.visit_enum(Variant { name: key, content: Some(node), lookup: self.lookup })
                }
                _ => {
                    let hint = suggest::allowed(None, variants);
                    Err(Error::value(format!("expected one name, found {}", Type::Map), Some(hint)))
                }
            },
            _ => match self.scalar("one name") {
                Ok(scalar) if variants.contains(&&*scalar.text) => {
                    visitor.visit_enum(Variant { name: &scalar.text, content: None, lookup: self.lookup })
                }
                Ok(scalar) => {
                    let hint = suggest::allowed(Some(&scalar.text), variants);
                    Err(Error::value("not an allowed value", Some(hint)))
                }
                Err(error) => Err(error),
            },
        };
        value.map_err(|error: Error| self.fail(error))
    }

    fn deserialize_identifier<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_str(visitor)
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_unit()
    }
}

struct Items<'a> {
    items: std::slice::Iter<'a, Node>,
    lookup: &'a dyn Lookup,
}

impl<'de> SeqAccess<'de> for Items<'de> {
    type Error = Error;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Error> {
        let Some(node) = self.items.find(|item| !item.left_out) else { return Ok(None) };
        let value = NodeDeserializer::new(node, self.lookup);
        seed.deserialize(value).map(Some).map_err(|error| value.fail(error))
    }
}

struct Entries<'a> {
    entries: std::slice::Iter<'a, Entry>,
    value: Option<&'a Node>,
    lookup: &'a dyn Lookup,
}

impl<'de> MapAccess<'de> for Entries<'de> {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Error> {
        let Some(entry) = self.entries.find(|entry| !entry.node.left_out) else { return Ok(None) };
        self.value = Some(&entry.node);
        let key: StrDeserializer<'_, Error> = entry.key.as_str().into_deserializer();
        seed.deserialize(key).map(Some).map_err(|mut error| {
            error.node.get_or_insert(entry.node.id);
            if let Kind::Custom(reason) = &mut error.kind {
                hide(reason, &entry.key);
            }
            error
        })
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Error> {
        let Some(node) = self.value.take() else {
            return Err(Error::value("a value was asked for before its key", None));
        };
        let value = NodeDeserializer::new(node, self.lookup);
        seed.deserialize(value).map_err(|error| value.fail(error))
    }
}

/// An enum's variant: a name alone, or `{ name: content }`.
struct Variant<'n, 'a> {
    name: &'n str,
    content: Option<&'a Node>,
    lookup: &'a dyn Lookup,
}

impl<'de> EnumAccess<'de> for Variant<'_, 'de> {
    type Error = Error;
    type Variant = Self;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Self), Error> {
        let name: StrDeserializer<'_, Error> = self.name.into_deserializer();
        Ok((seed.deserialize(name)?, self))
    }
}

impl<'de> Variant<'_, 'de> {
    fn content(self) -> Result<NodeDeserializer<'de>, Error> {
        match self.content {
            Some(node) => Ok(NodeDeserializer::new(node, self.lookup)),
            None => Err(Error::value(format!("expected a map with the key `{}`", self.name), None)),
        }
    }
}

impl<'de> VariantAccess<'de> for Variant<'_, 'de> {
    type Error = Error;

    fn unit_variant(self) -> Result<(), Error> {
        match self.content {
            None => Ok(()),
            Some(node) => Err(Error::expected("the name alone", node.kind())),
        }
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, Error> {
        seed.deserialize(self.content()?)
    }

    fn tuple_variant<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, Error> {
        self.content()?.deserialize_tuple(len, visitor)
    }

    fn struct_variant<V: Visitor<'de>>(self, keys: &'static [&'static str], visitor: V) -> Result<V::Value, Error> {
        self.content()?.deserialize_struct("", keys, visitor)
    }
}
