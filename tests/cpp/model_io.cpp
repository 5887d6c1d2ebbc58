// Models in files: what is written is read to the same bits, and what is broken is refused by name.
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <limits>
#include <sstream>
#include <system_error>

#include "check.hpp"

namespace {

using bptt::Cell;
using bptt::Index;
using bptt::Model;

template <class R>
Model<R> every_layer() {
    bptt::RecurrentOptions stack, plain;
    stack.num_layers = 2;
    stack.dropout = 0.25;
    stack.bidirectional = true;
    stack.learn_initial_state = true;
    plain.bias = false;
    Model<R> model = bptt::sequential<R>(
        {bptt::make_embedding<R>(5, 3), bptt::make_recurrent<R>(Cell::lstm, 3, 4, stack),
         bptt::make_linear<R>(8, 3, false), bptt::make_recurrent<R>(Cell::gru, 3, 2),
         bptt::make_recurrent<R>(Cell::gru_reset_before, 2, 2, plain),
         bptt::make_recurrent<R>(Cell::rnn_tanh, 2, 3), bptt::make_recurrent<R>(Cell::rnn_relu, 3, 3),
         bptt::make_recurrent<R>(Cell::rnn_identity, 3, 3), bptt::make_linear<R>(3, 2),
         bptt::Activation<R>{bptt::Nonlinearity::tanh}, bptt::Activation<R>{bptt::Nonlinearity::relu},
         bptt::Activation<R>{bptt::Nonlinearity::sigmoid}, bptt::Activation<R>{bptt::Nonlinearity::elu},
         bptt::Activation<R>{bptt::Nonlinearity::softmax}});
    bptt::Random random(7);
    bptt::initialize(model, random);
    return model;
}

template <class R>
void check_same(const Model<R>& a, const Model<R>& b, const std::string& what) {
    const auto left = bptt::parameters(a), right = bptt::parameters(b);
    check(left.size() == right.size(), what + ": as many parameters");
    for (std::size_t i = 0; i < left.size() && i < right.size(); ++i)
        check(left[i].name == right[i].name && same_bits<R>(left[i].value, right[i].value),
              what + ": " + left[i].name);
}

template <class R>
void what_is_saved_is_loaded(const std::string& folder) {
    const Model<R> model = every_layer<R>();
    const bptt::Metadata metadata{{"text", "ä\n\"\\ \t"}, {"", "empty"}};
    const std::string path = folder + "/m.safetensors";
    bptt::save_model(path, model, metadata);
    bptt::save_model(path, model, metadata);  // over the old one
    const auto loaded = bptt::load_model<R>(path);
    check_same(model, loaded.model, "a saved model");
    check(loaded.metadata == metadata, "the metadata is that of the file");
    check(bptt::model_to_bytes(loaded.model, loaded.metadata) == bptt::model_to_bytes(model, metadata),
          "a loaded model is written to the same bytes");
    const auto& stack = std::get<bptt::Recurrent<R>>(loaded.model.layers[1].layer);
    check(stack.dropout == 0.25 && stack.bidirectional && stack.num_layers == 2, "options are kept");
    const std::int64_t index[] = {1, 4, 0};
    const bptt::View<const std::int64_t> x(index, {3, 1});
    check(same_bits<R>(bptt::predict(model, bptt::Input<R>(x)).y,
                       bptt::predict(loaded.model, bptt::Input<R>(x)).y),
          "a loaded model computes the same bits");
    std::size_t files = 0;
    for (const auto& entry : std::filesystem::directory_iterator(folder)) files += entry.exists();
    check(files == 1, "nothing else is left in the folder");
}

// The file's bytes with one piece of the header changed, and the length that goes with it.
std::string changed(std::string bytes, const std::string& from, const std::string& to) {
    const std::size_t at = bytes.find(from);
    check(at != std::string::npos, "the header has " + from);
    if (at == std::string::npos) return bytes;
    bytes.replace(at, from.size(), to);
    std::uint64_t length = 0;
    std::memcpy(&length, bytes.data(), 8);
    length += to.size() - from.size();
    std::memcpy(bytes.data(), &length, 8);
    return bytes;
}

void broken_files_are_refused_by_name(const std::string& folder) {
    Model<float> model = bptt::sequential<float>(
        {bptt::make_recurrent<float>(Cell::lstm, 2, 3), bptt::make_linear<float>(3, 1)});
    bptt::Random random(1);
    bptt::initialize(model, random);
    const std::string whole = bptt::model_to_bytes(model);
    const auto refused = [](const std::string& words, const std::string& bytes) {
        check_refused(words, [&] { bptt::model_from_bytes<float>(bytes); });
    };
    for (std::size_t size = 0; size < whole.size(); ++size)
        refused("model_from_bytes: ", whole.substr(0, size));
    refused("7 bytes, expected at least 8", whole.substr(0, 7));
    refused("header's length", "\xff\xff\xff\xff\xff\xff\xff\xff" + whole.substr(8));
    refused("header's length", std::string("\x00\xff\xff\x00\x00\x00\x00\x00", 8) + whole.substr(8));
    refused("the tensors end at byte", whole + "x");

    const auto header = [&](const std::string& words, const std::string& from, const std::string& to) {
        refused(words, changed(whole, from, to));
    };
    header("expected a value", "\"shape\":[12,2]", "\"shape\":[12,]");
    header("has shape (2, 12), expected (12, 2)", "\"shape\":[12,2]", "\"shape\":[2,12]");
    header("overflows", "\"shape\":[12,2]", "\"shape\":[4503599627370496,4503599627370496]");
    header("expected an integer", "\"shape\":[12,2]", "\"shape\":[-12,2]");
    header("expected an integer", "\"shape\":[12,2]", "\"shape\":[1e300,2]");
    header("has 9 dimensions", "\"shape\":[12,2]", "\"shape\":[1,1,1,1,1,1,1,12,2]");
    header("and 12 bytes, expected 96", "\"data_offsets\":[0,96]", "\"data_offsets\":[0,12]");
    header("0.weight_ih_l0", "\"data_offsets\":[0,96]", "\"data_offsets\":[96,0]");
    header("cut short or broken", "\"data_offsets\":[0,96]", "\"data_offsets\":[999999,1000095]");
    header("begins at byte 4", "\"data_offsets\":[0,96]", "\"data_offsets\":[4,100]");
    header("dtype \"F31\"", "\"F32\"", "\"F31\"");
    header("0.weight_ih_l0\" has dtype I32, expected F32", "\"F32\"", "\"I32\"");
    header("\"0.weight_ih_l0\" is missing", "\"0.weight_ih_l0\"", "\"0.weight\"");
    header("\"1.bias\" belongs to no layer", "\\\"bias\\\": true}]", "\\\"bias\\\": false}]");
    header("bptt_model has no format", "\\\"format\\\": 1", "\\\"x\\\": 0");
    header("of format 2, expected 1", "\\\"format\\\": 1", "\\\"format\\\": 2");
    header("expected one of RNN, LSTM, GRU", "\\\"LSTM\\\"", "\\\"Transformer\\\"");
    header("no hidden_size", "hidden_size", "hidden_sizes");
    header("does not know", "\\\"bias\\\": true,", "\\\"bias\\\": true, \\\"peephole\\\": true,");
    header("hidden_size is 3e+09, expected an integer", "\\\"hidden_size\\\": 3,",
           "\\\"hidden_size\\\": 3000000000,");
    header("expected (8, 2)", "\\\"hidden_size\\\": 3,", "\\\"hidden_size\\\": 2,");
    header("\"0.weight_ih_l1\" is missing", "\\\"num_layers\\\": 1,", "\\\"num_layers\\\": 2000000000,");
    header("the metadata has no bptt_model", "bptt_model", "bptt_modem");

    const std::string active = bptt::model_to_bytes(
        bptt::sequential<float>({bptt::make_linear<float>(2, 1), bptt::Activation<float>()}));
    refused("layers[1]: nonlinearity is \"tan\", expected one of tanh, relu, sigmoid, elu, softmax",
            changed(active, "\\\"tanh\\\"", "\\\"tan\\\""));
    refused("layers[1] has no nonlinearity", changed(active, "nonlinearity", "linearity"));

    std::string nan = whole;
    const float value = std::numeric_limits<float>::quiet_NaN();
    std::memcpy(nan.data() + nan.size() - 8, &value, 4);  // the last but one: 1.weight or 1.bias
    refused("tensor \"1.weight\"[0, 2] is nan", nan);

    check_refused("dtype F32, expected F64", [&] { bptt::model_from_bytes<double>(whole); });
    check_refused<std::runtime_error>("missing", [&] { bptt::load_model<float>(folder + "/missing"); });
    check_refused<std::system_error>("load_model", [&] { bptt::load_model<float>(folder); });
    check_refused<std::system_error>("save_model", [&] { bptt::save_model(folder + "/no/m", model); });
    check_refused("load_model(\"" + folder + "/short\")", [&] {
        std::ofstream(folder + "/short") << whole.substr(0, 99);
        bptt::load_model<float>(folder + "/short");
    });
}

void models_that_can_not_be_read_are_not_written(const std::string& folder) {
    const std::string path = folder + "/kept";
    const Model<float> good = bptt::sequential<float>({bptt::make_linear<float>(2, 1)});
    bptt::save_model(path, good);
    const auto refused = [&](const std::string& words, const Model<float>& model) {
        check_refused(words, [&] { bptt::save_model(path, model); });
        check_same(bptt::load_model<float>(path).model, good, "the file from before: " + words);
    };
    Model<float> model = bptt::sequential<float>({bptt::make_linear<float>(2, 1)});
    std::get<bptt::Linear<float>>(model.layers[0].layer).weight.data()[1] = INFINITY;
    refused("0.weight[0, 1] is inf", model);
    refused("there are no layers", Model<float>());
    refused("reads 3 numbers, expected 2",
            bptt::sequential<float>({bptt::make_linear<float>(2, 2), bptt::make_linear<float>(3, 2)}));
    model = bptt::sequential<float>({bptt::make_linear<float>(2, 2), bptt::make_linear<float>(2, 2)});
    model.layers[1].name = "0";
    refused("twice", model);
    model.layers[1].layer = bptt::Linear<float>();
    refused("weight", model);
    check_refused("metadata has bptt_model", [&] { bptt::save_model(path, good, {{"bptt_model", "x"}}); });
}

// For Python's test: a model of each layer to one file, and what it computes to another; and back.
int exchange(const std::string& from, const std::string& to) {
    const auto loaded = bptt::load_model<float>(from);
    bptt::save_model(to, loaded.model, loaded.metadata);
    return 0;
}

}  // namespace

int main(int argc, char** argv) {
    if (argc == 3) return exchange(argv[1], argv[2]);
    const auto folder =
        std::filesystem::temp_directory_path() /
        ("bptt_model_io_" + std::to_string(static_cast<unsigned long long>(
                                std::filesystem::file_time_type::clock::now().time_since_epoch().count())));
    for (const auto test : {what_is_saved_is_loaded<float>, what_is_saved_is_loaded<double>,
                            broken_files_are_refused_by_name, models_that_can_not_be_read_are_not_written}) {
        std::filesystem::create_directory(folder);
        test(folder.string());
        std::filesystem::remove_all(folder);
    }
    if (failures == 0) std::puts("models in files: all laws hold");
    return failures == 0 ? 0 : 1;
}
