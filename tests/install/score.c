/* score_c MODEL QUERY PICTURE: prints the log-odds of one pair, through the C API. */
#include <stdio.h>

#include "vlr/vlr.h"

int main(int argc, char** argv) {
  vlr_error error = VLR_ERROR_INIT;
  vlr_options* options = NULL;
  vlr_reranker* reranker = NULL;
  vlr_request* request = NULL;
  vlr_result result;
  int64_t document = 0;
  int failed = 1;
  if (argc != 4) return 2;
  options = vlr_options_new();
  request = vlr_request_new();
  if (options != NULL && request != NULL &&
      vlr_options_set(options, "device", "auto", &error) == VLR_OK &&
      vlr_open(argv[1], options, &reranker, &error) == VLR_OK &&
      vlr_request_add_text(request, VLR_QUERY, argv[2], &error) == VLR_OK &&
      vlr_request_add_document(request, &document, &error) == VLR_OK &&
      vlr_request_add_image_file(request, document, argv[3], &error) == VLR_OK &&
      vlr_score(reranker, request, &result, sizeof result, NULL, NULL, NULL, &error) == VLR_OK) {
    failed = result.status != VLR_DOCUMENT_OK;
    if (failed)
      fprintf(stderr, "%s\n", result.message);
    else
      printf("%.6f\n", (double)result.log_odds);
  } else {
    fprintf(stderr, "%s\n", error.message);
  }
  vlr_options_free(options);
  vlr_request_free(request);
  vlr_close(reranker);
  return failed;
}
