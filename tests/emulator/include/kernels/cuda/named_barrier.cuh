// shared_address: emu.h
#include "../../../emu.h"
