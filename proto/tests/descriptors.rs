//! Pins the protocol: programs of different versions talk to each other, so a field never gets
//! another number or type. A change that only adds is accepted with `INSTA_UPDATE=always`; one that
//! changes or removes a line of the snapshot needs `reserved` in the `.proto` file.

use prost::Message;
use prost_types::{
    DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorSet, ServiceDescriptorProto,
};

#[test]
fn no_field_value_or_call_ever_changes() {
    let files = FileDescriptorSet::decode(buildr_proto::DESCRIPTORS).unwrap().file;
    let mut lines = Vec::new();
    for file in files.iter().filter(|file| file.package() == "buildr.v1") {
        file.service.iter().for_each(|service| write_service(&mut lines, service));
        file.message_type.iter().for_each(|message| write_message(&mut lines, "", message));
        file.enum_type.iter().for_each(|values| write_enum(&mut lines, "", values));
    }
    lines.sort_unstable();
    insta::assert_snapshot!(lines.join("\n"));
}

fn write_service(lines: &mut Vec<String>, service: &ServiceDescriptorProto) {
    for call in &service.method {
        let stream = |streams| if streams { "stream " } else { "" };
        lines.push(format!(
            "rpc {}.{}({}{}) -> {}{}",
            service.name(),
            call.name(),
            stream(call.client_streaming()),
            call.input_type(),
            stream(call.server_streaming()),
            call.output_type(),
        ));
    }
}

fn write_message(lines: &mut Vec<String>, prefix: &str, message: &DescriptorProto) {
    let name = format!("{prefix}{}", message.name());
    lines.push(format!("message {name}"));
    for field in &message.field {
        lines.push(format!("message {name} {:3} {}", field.number(), describe(message, field)));
    }
    for range in &message.reserved_range {
        lines.push(format!("message {name} {:3} reserved to {}", range.start(), range.end() - 1));
    }
    let prefix = format!("{name}.");
    message.nested_type.iter().for_each(|nested| write_message(lines, &prefix, nested));
    message.enum_type.iter().for_each(|values| write_enum(lines, &prefix, values));
}

fn describe(message: &DescriptorProto, field: &FieldDescriptorProto) -> String {
    let label = field.label().as_str_name().trim_start_matches("LABEL_").to_lowercase();
    let kind = field.r#type().as_str_name().trim_start_matches("TYPE_").to_lowercase();
    let of = field.type_name.as_deref().map(|name| format!(" {name}")).unwrap_or_default();
    let presence = match field.oneof_index {
        Some(_) if field.proto3_optional() => " with presence".to_owned(),
        Some(index) => format!(" in oneof {}", message.oneof_decl[index as usize].name()),
        None => String::new(),
    };
    format!("{}: {label} {kind}{of}{presence}", field.name())
}

fn write_enum(lines: &mut Vec<String>, prefix: &str, values: &EnumDescriptorProto) {
    let name = format!("{prefix}{}", values.name());
    for value in &values.value {
        lines.push(format!("enum {name} {:3} {}", value.number(), value.name()));
    }
}
