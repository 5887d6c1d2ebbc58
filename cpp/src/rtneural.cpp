// RTNeural's JSON: which kind a text is, and files of it.
#include "rtneural.hpp"

#include "bptt/model_io.hpp"
#include "files.hpp"

namespace bptt {
namespace {

constexpr std::size_t kMaxFile = std::size_t{1} << 30;

template <class R>
Model<R> read(std::string_view text, const std::string& where) {
    const validate::Caller caller(where);
    const json::Value file = json::parse(text, where);
    if (file.object() == nullptr)
        caller.fail(std::string("the file is ") + file.kind() + ", expected an object");
    if (file.find("layers") != nullptr) return rtneural::read_keras<R>(caller, file);
    const json::Value* const tensors = file.find("state_dict");
    if (tensors == nullptr) return rtneural::read_torch<R>(caller, file);
    // What the trainer of several amplifier plug-ins writes beside it: the input may be added to the output.
    if (const json::Value* const data = file.find("model_data"))
        if (const json::Value* const skip = data->find("skip"))
            if (skip->number() == nullptr || *skip->number() != 0)
                caller.fail(
                    "model_data has a skip, which adds the input to the output, expected 0: "
                    "a model here has none");
    return rtneural::read_torch<R>(caller, *tensors);
}

std::string with_path(const char* name, const std::string& path) {
    return std::string(name) + "(\"" + path + "\")";
}

}  // namespace

template <class R>
Model<R> load_rtneural(const std::string& path) {
    const std::string where = with_path("load_rtneural", path);
    return read<R>(files::read(path, kMaxFile, where), where);
}

template <class R>
void save_rtneural(const std::string& path, const Model<R>& model) {
    const std::string where = with_path("save_rtneural", path);
    files::write_atomically(path, rtneural::write_keras(validate::Caller(where), model), where);
}

template <class R>
Model<R> rtneural_from_text(std::string_view text) {
    return read<R>(text, "rtneural_from_text");
}

template <class R>
std::string rtneural_to_text(const Model<R>& model) {
    return rtneural::write_keras(validate::Caller("rtneural_to_text"), model);
}

template Model<float> load_rtneural(const std::string&);
template Model<double> load_rtneural(const std::string&);
template void save_rtneural(const std::string&, const Model<float>&);
template void save_rtneural(const std::string&, const Model<double>&);
template Model<float> rtneural_from_text(std::string_view);
template Model<double> rtneural_from_text(std::string_view);
template std::string rtneural_to_text(const Model<float>&);
template std::string rtneural_to_text(const Model<double>&);

}  // namespace bptt
