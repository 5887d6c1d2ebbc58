// Runs a character model that Python has trained:  character model.safetensors [characters to write]
// The model is what `bptt train` writes. It tells how well the model knows a sentence, and lets it write.
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <string>
#include <vector>

#include "bptt/bptt.hpp"

// The characters of a text, each as UTF-8 has it.
std::vector<std::string> characters(const std::string& text) {
    std::vector<std::string> all;
    for (const char c : text) {
        const bool continues = (static_cast<unsigned char>(c) & 0xC0) == 0x80;
        if (!continues || all.empty()) all.emplace_back();
        all.back() += c;
    }
    return all;
}

// Probabilities from logits that are divided by a temperature.
std::vector<double> softmax(const float* logits, std::size_t count, double temperature) {
    std::vector<double> p(count);
    double largest = logits[0], sum = 0;
    for (std::size_t i = 0; i < count; ++i) largest = std::fmax(largest, static_cast<double>(logits[i]));
    for (std::size_t i = 0; i < count; ++i)
        sum += p[i] = std::exp((static_cast<double>(logits[i]) - largest) / temperature);
    for (double& each : p) each /= sum;
    return p;
}

int main(int argc, char** argv) try {
    if (argc < 2) throw std::invalid_argument("usage: character model.safetensors [characters to write]");
    const auto file = bptt::load_model<float>(argv[1]);
    const std::vector<std::string> vocabulary = characters(file.metadata.at("vocabulary"));
    const auto index_of = [&](const std::string& character) {
        std::size_t i = 0;
        while (i < vocabulary.size() && vocabulary[i] != character) ++i;
        return static_cast<std::int64_t>(i < vocabulary.size() ? i : 0);
    };
    bptt::ModelStream<float> stream(file.model);
    if (stream.output_size() != static_cast<bptt::Index>(vocabulary.size()))
        throw std::invalid_argument("the model does not give one number for each character");

    // Bits per character: the mean of -log2 of the probability that it gave to the one that came.
    const std::vector<std::string> sentence = characters(
        "If the object is a class, the function returns a new instance of the class with the same value.\n");
    double bits = 0;
    for (std::size_t i = 0; i + 1 < sentence.size(); ++i) {
        const float* const logits = stream.step_index(index_of(sentence[i]));
        bits -= std::log2(
            softmax(logits, vocabulary.size(), 1)[static_cast<std::size_t>(index_of(sentence[i + 1]))]);
    }
    bits /= static_cast<double>(sentence.size() - 1);
    const double blind = std::log2(static_cast<double>(vocabulary.size()));
    std::printf("bits per character of a sentence: %.2f; all characters alike: %.2f\n\n", bits, blind);

    std::mt19937 random(1);
    std::size_t next = static_cast<std::size_t>(index_of("\n"));
    stream.reset();
    for (int left = argc > 2 ? std::atoi(argv[2]) : 300; left > 0; --left) {
        const float* const logits = stream.step_index(static_cast<std::int64_t>(next));
        const std::vector<double> p = softmax(logits, vocabulary.size(), 0.8);
        next = std::discrete_distribution<std::size_t>(p.begin(), p.end())(random);
        std::fputs(vocabulary[next].c_str(), stdout);
    }
    std::puts("");
    return bits < 0.75 * blind ? 0 : 1;
} catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 2;
}
