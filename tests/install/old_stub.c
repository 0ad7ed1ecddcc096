/* Stands for the libvlr.so.0 of version 0.1, whose options were a struct that was returned by value. */
typedef struct vlr_options {
  const char* device;
  char rest[176];
} vlr_options;

vlr_options vlr_default_options(void) {
  vlr_options options = {"auto", {0}};
  return options;
}
