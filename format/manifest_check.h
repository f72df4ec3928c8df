// What a manifest must satisfy, for the reader and the writer alike.
#ifndef QUIRE_FORMAT_MANIFEST_CHECK_H_
#define QUIRE_FORMAT_MANIFEST_CHECK_H_

#include <cstdint>

#include "absl/status/status.h"
#include "format/manifest.pb.h"
#include "format/packed_layout.h"

namespace quire {

// The geometry of an entry. Precondition: encoding, layout and rank are valid.
Geometry GeometryOf(const pb::TensorEntry& entry);
// The values of an entry's codebook, or null where its encoding has none. Borrows from the
// manifest, whose entry it is.
const int8_t* CodebookOf(const pb::Manifest& manifest, const pb::TensorEntry& entry);

// Features that this program knows (Manifest.required_features).
bool IsKnownFeature(const std::string& feature);

// Sets the encoding of `entry`, one of the manifest's tensors, and the codebook that goes with it
// (Info(encoding).codebook_size values; null where that is 0): one that the manifest has, or else a
// new one, with the feature that it requires.
void SetEncoding(Encoding encoding, const int8_t* codebook, pb::Manifest* manifest,
                 pb::TensorEntry* entry);
// Removes the codebooks and the feature that they require, before all encodings are set anew.
void ClearCodebooks(pb::Manifest* manifest);

// Everything but offsets, sizes and checksums: names, shapes, encodings, codebooks, configuration,
// features. InvalidArgument, ResourceExhausted (a limit of header.h), Unimplemented (unknown
// encoding or required feature).
absl::Status CheckManifest(const pb::Manifest& manifest);

// Assigns offset and bytes of every tensor and of the tokenizer section, for a manifest that
// serializes to manifest_bytes: each starts on the next multiple of kTensorAlignment. Returns the
// file's size, also such a multiple. A manifest that is read must equal its own plan: FORMAT.md
// leaves no freedom. tokenizer_bytes 0: no section. Precondition: CheckManifest.
int64_t PlanOffsets(pb::Manifest* manifest, int64_t manifest_bytes, int64_t tokenizer_bytes);

}  // namespace quire

#endif  // QUIRE_FORMAT_MANIFEST_CHECK_H_
