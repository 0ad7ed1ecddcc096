/* score_c MODEL QUERY PICTURE: prints the log-odds of one pair, through the C API. */
#include <stdio.h>

#include "vlr/vlr.h"

int main(int argc, char** argv) {
  vlr_error error = {VLR_OK, ""};
  vlr_reranker* reranker = NULL;
  vlr_request* request = NULL;
  vlr_result result;
  int64_t document = 0;
  int failed = 1;
  if (argc != 4) return 2;
  request = vlr_request_new();
  if (request == NULL) return 1;
  if (vlr_open(argv[1], NULL, &reranker, &error) == VLR_OK &&
      vlr_request_add_text(request, VLR_QUERY, argv[2], &error) == VLR_OK &&
      vlr_request_add_document(request, &document, &error) == VLR_OK &&
      vlr_request_add_image_file(request, document, argv[3], &error) == VLR_OK &&
      vlr_score(reranker, request, &result, NULL, NULL, &error) == VLR_OK) {
    failed = result.status != VLR_DOCUMENT_OK;
    if (failed)
      fprintf(stderr, "%s\n", result.message);
    else
      printf("%.6f\n", (double)result.log_odds);
  } else {
    fprintf(stderr, "%s\n", error.message);
  }
  vlr_request_free(request);
  vlr_close(reranker);
  return failed;
}
