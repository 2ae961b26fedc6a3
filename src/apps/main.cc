// The binary: everything is in cli/.
#include "cli/commands.h"

int main(int argc, char** argv) { return pensieve::cli::Main(argc, argv); }
