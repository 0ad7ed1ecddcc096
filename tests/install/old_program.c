/* A program of version 0.1: vlr_options in it has a size that later libraries do not know. */
#include <stdio.h>

typedef struct vlr_options {
  const char* device;
  char rest[176];
} vlr_options;
vlr_options vlr_default_options(void);

int main(void) {
  puts(vlr_default_options().device);
  return 0;
}
