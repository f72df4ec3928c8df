// sentencepiece's tokenizer.model.
#include "absl/strings/str_format.h"
#include "convert/sentencepiece_model.pb.h"
#include "convert/tokenizer_builder.h"
#include "convert/tokenizer_files.h"

namespace quire {

absl::StatusOr<pb::Tokenizer> ImportSentencepieceModel(absl::string_view content) {
  sentencepiece::ModelProto model;
  if (!model.ParseFromArray(content.data(), static_cast<int>(content.size())) ||
      model.pieces_size() == 0) {
    return absl::InvalidArgumentError("not a sentencepiece model");
  }
  const sentencepiece::TrainerSpec& trainer = model.trainer_spec();
  const sentencepiece::NormalizerSpec& normalizer = model.normalizer_spec();
  pb::Tokenizer out;
  switch (trainer.model_type()) {
    case sentencepiece::TrainerSpec::UNIGRAM:
      out.set_model(pb::Tokenizer::UNIGRAM);
      break;
    case sentencepiece::TrainerSpec::BPE:
      out.set_model(pb::Tokenizer::BPE_BY_SCORE);
      break;
    default:
      return absl::UnimplementedError(
          absl::StrFormat("sentencepiece model of type %s, supported are BPE and UNIGRAM",
                          sentencepiece::TrainerSpec::ModelType_Name(trainer.model_type())));
  }
  if (trainer.treat_whitespace_as_suffix()) {
    return absl::UnimplementedError(
        "sentencepiece model with treat_whitespace_as_suffix is not supported");
  }
  if (!model.denormalizer_spec().precompiled_charsmap().empty()) {
    return absl::UnimplementedError("sentencepiece model with a denormalizer is not supported");
  }
  for (int id = 0; id < model.pieces_size(); ++id) {
    const sentencepiece::ModelProto::Piece& piece = model.pieces(id);
    AddPiece(piece.piece(), static_cast<pb::PieceKind>(piece.type()), &out);
    out.add_piece_score(piece.score());
    if (piece.type() == sentencepiece::ModelProto::Piece::UNKNOWN) out.set_unknown_id(id);
    if (piece.type() == sentencepiece::ModelProto::Piece::UNKNOWN ||
        piece.type() == sentencepiece::ModelProto::Piece::CONTROL) {
      pb::AddedToken* token = out.add_added_tokens();
      token->set_id(id);
      token->set_special(true);
    }
  }
  out.set_byte_fallback(trainer.byte_fallback());
  out.set_fuse_unknown(true);
  out.set_unknown_text(trainer.unk_surface());
  pb::SentencepieceNormalizer* spec = out.mutable_sentencepiece();
  spec->set_precompiled_charsmap(normalizer.precompiled_charsmap());
  spec->set_add_dummy_prefix(normalizer.add_dummy_prefix());
  spec->set_remove_extra_whitespaces(normalizer.remove_extra_whitespaces());
  spec->set_escape_whitespaces(normalizer.escape_whitespaces());
  out.set_space_symbol(true);
  out.set_strip_leading_space(normalizer.add_dummy_prefix() ||
                              normalizer.remove_extra_whitespaces());

  const auto control = [&](int id) {
    return id >= 0 && id < model.pieces_size() &&
           model.pieces(id).type() == sentencepiece::ModelProto::Piece::CONTROL;
  };
  if (control(trainer.bos_id())) {
    out.set_bos_id(trainer.bos_id());
    out.set_add_bos(true);  // as LLaMA's tokenizers do
  }
  if (control(trainer.eos_id())) out.add_eos_ids(trainer.eos_id());
  return out;
}

}  // namespace quire
