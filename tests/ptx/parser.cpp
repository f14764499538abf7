// From PTX's text to kernels. A statement ends at its semicolon; scopes only limit the names of registers. Knows what
// an instruction's operands are called, and not what it does.
#include "parser.h"

#include <algorithm>
#include <cctype>
#include <string_view>
#include <unordered_map>
#include <utility>

#include "operations.h"

namespace ptx {
namespace {

using Text = std::string_view;

constexpr Slot kUnwritten = 0xDEADBEEFDEADBEEF;  // what a register holds before it is written

bool is_space(char c) { return std::isspace(static_cast<unsigned char>(c)) != 0; }

Text trimmed(Text x) {
    while (!x.empty() && is_space(x.front())) x.remove_prefix(1);
    while (!x.empty() && is_space(x.back())) x.remove_suffix(1);
    return x;
}

bool begins(Text x, Text with) { return x.substr(0, with.size()) == with; }

// Parts between commas or dots, but not between those within brackets or braces.
std::vector<Text> split(Text x, char at) {
    std::vector<Text> parts;
    int depth = 0;
    size_t begin = 0;
    for (size_t n = 0; n <= x.size(); ++n) {
        if (n == x.size() || (x[n] == at && depth == 0)) {
            parts.push_back(trimmed(x.substr(begin, n - begin)));
            begin = n + 1;
        } else {
            depth += (x[n] == '{' || x[n] == '[') - (x[n] == '}' || x[n] == ']');
        }
    }
    return parts;
}

class Parser {
  public:
    explicit Parser(Text whole) : text(whole), module(std::make_unique<Module>()) {}

    std::unique_ptr<Module> run() {
        for (size_t begin = 0; begin <= text.size();) {
            const size_t end = std::min(text.find('\n', begin), text.size());
            module->lines.emplace_back(text.substr(begin, end - begin));
            begin = end + 1;
        }
        while (skip(), at < text.size()) directive();
        if (!module->capability) fail("no .target");
        return std::move(module);
    }

  private:
    [[noreturn]] void fail(const std::string& why) const {
        throw ParseError("line " + std::to_string(line) + ": " + why);
    }
    [[noreturn]] void unknown(const std::string& what, Text name) const {
        fail("unknown " + what + " '" + std::string(name) + "'");
    }

    // ---- characters ----

    void skip() {  // spaces and comments
        for (; at < text.size(); ++at) {
            if (begins(text.substr(at), "//")) at = std::min(text.find('\n', at), text.size());
            if (at == text.size() || !is_space(text[at])) return;
            line += text[at] == '\n';
        }
    }

    Text until(Text ends) {
        const size_t begin = at;
        for (; at < text.size() && ends.find(text[at]) == Text::npos; ++at) line += text[at] == '\n';
        if (at == text.size()) fail("the text ends in the middle of a statement");
        return trimmed(text.substr(begin, at - begin));
    }

    int64_t number(Text x) const {
        if (x.empty()) fail("a number is missing");
        try {
            size_t used = 0;
            const auto made = static_cast<int64_t>(x[0] == '-' ? 0 - std::stoull(std::string(x.substr(1)), &used, 0)
                                                               : std::stoull(std::string(x), &used, 0));
            if (used + (x[0] == '-') == x.size()) return made;
        } catch (const std::logic_error&) {
        }
        unknown("number", x);
    }

    // ---- the module ----

    void directive() {
        const Text name = until(" \t\n");
        skip();
        if (name == ".target") {
            const Text target = until("\n, ");
            if (!begins(target, "sm_")) unknown("target", target);
            module->capability = static_cast<int>(number(target.substr(3)));
        } else if (name == ".version" || name == ".address_size") {
            until("\n");
        } else if (name == ".extern") {  // dynamic shared memory, which begins at address 0 of its space
            const Text declared = until(";");
            ++at;
            if (!begins(declared, ".shared") || declared.substr(declared.size() - 2) != "[]")
                unknown("declaration", declared);
            const size_t name_at = declared.find_last_of(" \t") + 1;
            symbols.emplace_back(declared.substr(name_at, declared.size() - 2 - name_at));
        } else if (name == ".visible") {
            entry();
        } else {
            unknown("directive", name);
        }
    }

    void entry() {
        if (const Text kind = until(" \t\n"); kind != ".entry") unknown("kind of function", kind);
        module->kernels.push_back(std::make_unique<Kernel>());
        kernel = module->kernels.back().get();
        kernel->name = until("(");
        kernel->lines = &module->lines;
        kernel->registers.assign(kFirstRegister, 0);
        names = {{"%tid.x", kThread}, {"%ntid.x", kThreads}, {"%ctaid.x", kBlock}, {"%nctaid.x", kBlocks}};
        labels.clear();
        jumps.clear();
        ++at;
        parameter(until(")"));
        ++at;
        for (skip(); at < text.size() && text[at] != '{'; skip()) attribute();
        body();
        for (const auto& [from, label] : jumps) {
            const auto found = labels.find(label);
            if (found == labels.end()) unknown("label", label);
            kernel->code[from].target = found->second;
        }
    }

    void parameter(Text given) {  // .param .align 8 .b8 name[bytes]
        const auto bracket = given.find('[');
        if (!begins(given, ".param") || bracket == Text::npos || given.find(',') != Text::npos ||
            given.find(".b8") == Text::npos)
            unknown("parameter", given);
        const size_t name_at = given.find_last_of(" \t", bracket) + 1;
        names[std::string(given.substr(name_at, bracket - name_at))] = constant(0);
        kernel->parameter_bytes = number(given.substr(bracket + 1, given.size() - bracket - 2));
    }

    void attribute() {
        const Text name = until(" \t\n");
        skip();
        const Text value = until(" \t\n,");
        if (name == ".maxntid") {
            kernel->max_threads = number(value);
            const Text others = until("\n");
            if (!others.empty() && others != ", 1, 1") unknown("number of threads", others);
        } else if (name != ".minnctapersm") {
            unknown("attribute", name);
        }
    }

    // ---- a kernel's body ----

    void body() {
        std::vector<std::vector<std::string>> outer;  // the names that each open scope has declared
        do {
            skip();
            if (at == text.size()) fail("the text ends in the middle of a kernel");
            const char c = text[at];
            if (c == '{') {
                outer.push_back(std::exchange(declared, {}));
                ++at;
            } else if (c == '}') {
                for (const std::string& name : declared) names.erase(name);
                declared = std::move(outer.back());
                outer.pop_back();
                ++at;
            } else if (c == '$') {
                if (const Text label = until(":"); !labels.emplace(label, kernel->code.size()).second)
                    fail("'" + std::string(label) + "' is there twice");
                ++at;
            } else {
                const int first = line;
                const Text whole = until(";");
                const int last = std::exchange(line, first);
                statement(whole);
                line = last;
                ++at;
            }
        } while (!outer.empty());
        Instruction end;  // a body may end without one
        end.kind = Kind::leave;
        end.line = line;
        kernel->code.push_back(end);
    }

    int constant(Slot value) {
        kernel->registers.push_back(value);
        return static_cast<int>(kernel->registers.size()) - 1;
    }

    void declare(const std::string& name) {
        if (!names.emplace(name, constant(kUnwritten)).second) fail("'" + name + "' is declared twice");
        declared.push_back(name);
    }

    void registers(Text declaration) {  // .reg .b32 %r<10>, or a list of names
        for (const Text part : split(declaration.substr(declaration.find_first_of(" \t", 6)), ',')) {
            const auto angle = part.find('<');
            const std::string name(part.substr(0, angle));
            if (angle == Text::npos) {
                declare(name);
                continue;
            }
            const int64_t count = number(part.substr(angle + 1, part.size() - angle - 2));
            for (int64_t n = 0; n < count; ++n) declare(name + std::to_string(n));
        }
    }

    // What an instruction writes: a register that the kernel declares.
    int destination(Text x) {
        const int found = operand(x);
        if (found < kFirstRegister || kernel->registers[static_cast<size_t>(found)] != kUnwritten)
            unknown("destination", x);
        return found;
    }

    // The register of an operand; a constant gets one.
    int operand(Text x) {
        const std::string name(x);
        if (const auto found = names.find(name); found != names.end()) return found->second;
        const bool hexadecimal = x.size() > 2 && x[0] == '0' && std::string_view("fFdD").find(x[1]) != Text::npos;
        if (hexadecimal) return names[name] = constant(static_cast<Slot>(number("0x" + name.substr(2))));
        if (!x.empty() && (x[0] == '-' || std::isdigit(static_cast<unsigned char>(x[0]))))
            return names[name] = constant(static_cast<Slot>(number(x)));
        if (std::find(symbols.begin(), symbols.end(), name) != symbols.end()) return names[name] = constant(0);
        unknown("operand", x);
    }

    void address(Instruction& made, Text x) {  // [base+offset]
        if (x.size() < 2 || x.front() != '[' || x.back() != ']') unknown("address", x);
        x = x.substr(1, x.size() - 2);
        const auto plus = x.find('+');
        if (plus != Text::npos) made.offset = number(x.substr(plus + 1));
        made.a = operand(trimmed(x.substr(0, plus)));
    }

    void elements(Instruction& made, Text x, bool written) {  // a register, or {a, b}
        const bool vector = x.front() == '{';
        const auto parts = split(vector ? x.substr(1, x.size() - 2) : x, ',');
        if (parts.size() > 4) unknown("vector", x);
        made.count = static_cast<uint8_t>(parts.size());
        for (size_t n = 0; n < parts.size(); ++n)
            made.elements[n] = written ? destination(parts[n]) : operand(parts[n]);
    }

    void statement(Text x) {
        if (begins(x, ".reg")) return registers(trimmed(x));
        if (begins(x, ".pragma")) return;  // "nounroll"
        if (x.empty() || x[0] == '.') unknown("directive", x);
        Instruction made;
        made.line = line;
        if (x[0] == '@') {
            const size_t end = x.find_first_of(" \t");
            made.unless = x[1] == '!';
            made.predicate = operand(x.substr(1 + made.unless, end - 1 - made.unless));
            x = trimmed(x.substr(end));
        }
        const size_t end = std::min(x.find_first_of(" \t"), x.size());
        instruction(made, x.substr(0, end), split(trimmed(x.substr(end)), ','));
        kernel->code.push_back(made);
    }

    void instruction(Instruction& made, Text opcode, const std::vector<Text>& operands) {
        const auto words = split(opcode, '.');
        const auto expect = [&](size_t count) {
            if (operands.size() != count) fail("the wrong number of operands for " + std::string(opcode));
        };
        if (opcode == "bra" || opcode == "bra.uni") {
            expect(1);
            made.kind = Kind::branch;
            jumps.emplace_back(kernel->code.size(), std::string(operands[0]));
        } else if (opcode == "ret") {
            made.kind = Kind::leave;
        } else if (opcode == "bar.sync") {
            expect(1);
            if (operands[0] != "0") unknown("barrier", operands[0]);
            made.kind = Kind::barrier;
            kernel->has_barrier = true;
        } else if (words[0] == "ld" || words[0] == "st" || words[0] == "atom") {
            expect(words[0] == "atom" ? 3 : 2);
            memory(made, opcode, words, operands);
        } else if (words[0] == "mov" && operands.size() == 2 &&
                   (operands[0].front() == '{' || operands[1].front() == '{')) {
            const bool unpacks = operands[0].front() == '{';
            elements(made, operands[unpacks ? 0 : 1], unpacks);
            if (made.count != 2) unknown("vector", operands[unpacks ? 0 : 1]);
            unpacks ? made.a = operand(operands[1]) : made.d = destination(operands[0]);
            if (opcode != "mov.b32" && opcode != "mov.b64") unknown("instruction", opcode);
            made.bytes = opcode == "mov.b32" ? 2 : 4;  // of a half
            made.operation = unpacks ? unpack : pack;
        } else {
            const auto found = operations().find(std::string(opcode));
            if (found == operations().end()) unknown("instruction", opcode);
            made.operation = found->second;
            expect(sources_of(words) + 1);
            int* const registers[] = {&made.d, &made.a, &made.b, &made.c, &made.e};
            for (size_t n = 0; n < operands.size(); ++n)
                *registers[n] = n ? operand(operands[n]) : destination(operands[n]);
        }
    }

    // How many sources a computing instruction has.
    static size_t sources_of(const std::vector<Text>& words) {
        for (const Text one : {"mov", "cvt", "cvta", "neg", "not", "abs", "rcp", "popc", "clz", "bfind", "brev"})
            if (words[0] == one) return 1;
        for (const Text three : {"fma", "mad", "selp", "bfe"})
            if (words[0] == three) return 3;
        return words[0] == "bfi" ? 4 : 2;
    }

    // ld and st, of the space that they name or by a generic address; atom.global.
    void memory(Instruction& made, Text opcode, const std::vector<Text>& words, const std::vector<Text>& operands) {
        made.kind = words[0] == "ld" ? Kind::load : words[0] == "st" ? Kind::store : Kind::atomic;
        size_t word = 1;
        if (words[word] == "shared" || words[word] == "param" || words[word] == "global") {
            made.space = words[word] == "shared"  ? Space::shared
                         : words[word] == "param" ? Space::parameter
                                                  : Space::global;
            ++word;
        }
        if (made.kind == Kind::store && made.space == Space::parameter) unknown("instruction", opcode);
        size_t vector = 1;
        if (words[word] == "v2" || words[word] == "v4") vector = static_cast<size_t>(words[word++][1] - '0');
        if (made.kind == Kind::atomic) {
            const std::string operation(words[word] == "xor" ? "xor.b32" : "add.s64");
            if (made.space != Space::global || (opcode != "atom.global.xor.b32" && opcode != "atom.global.add.u64"))
                unknown("instruction", opcode);
            made.operation = operations().at(operation);
            ++word;
        }
        if (word + 1 != words.size() || Text("bsuf").find(words[word][0]) == Text::npos) unknown("instruction", opcode);
        const int64_t bits = number(words[word].substr(1));
        if (bits != 8 && bits != 16 && bits != 32 && bits != 64) unknown("instruction", opcode);
        made.bytes = static_cast<uint8_t>(bits / 8);
        made.is_signed = words[word][0] == 's';
        if (made.kind == Kind::atomic) {
            made.d = destination(operands[0]);
            made.b = operand(operands[2]);
            return address(made, operands[1]);
        }
        elements(made, operands[made.kind == Kind::load ? 0 : 1], made.kind == Kind::load);
        address(made, operands[made.kind == Kind::load ? 1 : 0]);
        if (made.count != vector) fail("the wrong number of elements for " + std::string(opcode));
    }

    Text text;
    size_t at = 0;
    int line = 1;
    std::unique_ptr<Module> module;
    std::vector<std::string> symbols;
    Kernel* kernel = nullptr;
    std::unordered_map<std::string, int> names, labels;
    std::vector<std::string> declared;                  // in the innermost scope
    std::vector<std::pair<size_t, std::string>> jumps;  // the branch, and the label that it goes to
};

}  // namespace

std::unique_ptr<Module> parse(const std::string& text) { return Parser(text).run(); }

}  // namespace ptx
