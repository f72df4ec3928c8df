#include "tests/fuzz/protobuf_mutator.h"

#include <limits>

namespace quire {
namespace {

using google::protobuf::FieldDescriptor;
using google::protobuf::Message;

uint64_t AnyNumber(uint64_t near, Random& random) {
  switch (random() % 4) {
    case 0:
      return random() % 64;
    case 1:
      return near + random() % 5 - 2;
    case 2:
      return (uint64_t{1} << (random() % 64)) + random() % 3 - 1;
    default:
      return near ^ (uint64_t{1} << (random() % 32));
  }
}

double AnyReal(Random& random) {
  const double values[] = {0,
                           1,
                           -1,
                           1e-30,
                           1e30,
                           std::numeric_limits<double>::infinity(),
                           std::numeric_limits<double>::quiet_NaN(),
                           8192,
                           0.5};
  return values[random() % 9];
}

// Sets a scalar field; `index` of a repeated one, or -1.
void SetField(Message* message, const FieldDescriptor* field, int index, Random& random) {
  const google::protobuf::Reflection* r = message->GetReflection();
  const bool repeated = index >= 0;
  const auto number = [&](uint64_t now) { return AnyNumber(now, random); };
  switch (field->cpp_type()) {
    case FieldDescriptor::CPPTYPE_UINT32:
      if (repeated) {
        r->SetRepeatedUInt32(
            message, field, index,
            static_cast<uint32_t>(number(r->GetRepeatedUInt32(*message, field, index))));
      } else {
        r->SetUInt32(message, field, static_cast<uint32_t>(number(r->GetUInt32(*message, field))));
      }
      break;
    case FieldDescriptor::CPPTYPE_UINT64:
      if (repeated) {
        r->SetRepeatedUInt64(message, field, index,
                             number(r->GetRepeatedUInt64(*message, field, index)));
      } else {
        r->SetUInt64(message, field, number(r->GetUInt64(*message, field)));
      }
      break;
    case FieldDescriptor::CPPTYPE_ENUM:
      if (!repeated) r->SetEnumValue(message, field, static_cast<int>(random() % 9));
      break;
    case FieldDescriptor::CPPTYPE_BOOL:
      if (!repeated) r->SetBool(message, field, random() % 2 == 0);
      break;
    case FieldDescriptor::CPPTYPE_FLOAT:
      if (repeated) {
        r->SetRepeatedFloat(message, field, index, static_cast<float>(AnyReal(random)));
      } else {
        r->SetFloat(message, field, static_cast<float>(AnyReal(random)));
      }
      break;
    case FieldDescriptor::CPPTYPE_DOUBLE:
      if (!repeated) r->SetDouble(message, field, AnyReal(random));
      break;
    case FieldDescriptor::CPPTYPE_STRING:
      if (repeated) {
        r->SetRepeatedString(message, field, index,
                             MutateBytes(r->GetRepeatedString(*message, field, index), 64));
      } else {
        const std::string now = r->GetString(*message, field);
        r->SetString(message, field, MutateBytes(now, now.size() + 16));
      }
      break;
    default:
      break;
  }
}

}  // namespace

void MutateMessage(Message* message, Random& random) {
  const google::protobuf::Reflection* r = message->GetReflection();
  const google::protobuf::Descriptor* type = message->GetDescriptor();
  if (type->field_count() == 0) return;
  const FieldDescriptor* field =
      type->field(static_cast<int>(Below(static_cast<size_t>(type->field_count()), random)));
  const bool of_messages = field->cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE;
  if (!field->is_repeated()) {
    if (random() % 16 == 0) {
      r->ClearField(message, field);
    } else if (of_messages) {
      MutateMessage(r->MutableMessage(message, field), random);
    } else {
      SetField(message, field, -1, random);
    }
    return;
  }
  const int size = r->FieldSize(*message, field);
  const int at = size == 0 ? -1 : static_cast<int>(Below(static_cast<size_t>(size), random));
  switch (random() % 8) {
    case 0:
      if (size > 0) r->RemoveLast(message, field);
      break;
    case 1:
      if (size > 0) r->SwapElements(message, field, at, size - 1);
      break;
    case 2:
      if (of_messages) {
        Message* added = r->AddMessage(message, field);
        if (size > 0) added->CopyFrom(r->GetRepeatedMessage(*message, field, at));
      }
      break;
    default:
      if (size == 0) break;
      if (of_messages) {
        MutateMessage(r->MutableRepeatedMessage(message, field, at), random);
      } else {
        SetField(message, field, at, random);
      }
  }
}

}  // namespace quire
