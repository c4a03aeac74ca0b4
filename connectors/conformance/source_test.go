package conformance

import (
	"context"
	"net/http"
	"strconv"
	"strings"
	"testing"

	"github.com/metip/metip/connectors/contract"
)

func TestHTTPSource(t *testing.T) {
	Sources(t, func(*testing.T) *SourceHarness {
		return &SourceHarness{
			System: "http", Options: []byte(`{"path":"/in"}`), Config: contract.Config{Auth: contract.Auth{Kind: contract.AuthBearer}},
			Secrets: map[string]string{"token": "token-of-the-caller"}, Forgets: true,
			Offer: func(ctx context.Context, t *testing.T, r *SourceRun, i int) bool {
				status, err := post(ctx, r.Address, strconv.Itoa(i), `{"id":`+strconv.Itoa(i)+`}`)
				if err != nil {
					t.Error(err)
				}
				return status == http.StatusAccepted
			},
		}
	})
}

func post(ctx context.Context, address, id, body string) (int, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+address+"/in", strings.NewReader(body))
	if err != nil {
		return 0, err
	}
	request.Header.Set("Authorization", "Bearer token-of-the-caller")
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("Idempotency-Key", id)
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return 0, err
	}
	return response.StatusCode, response.Body.Close()
}

// The clock offers a tick a second whether anybody asks or not; the broker's confirmation is its acknowledgement.
func TestScheduleSource(t *testing.T) {
	Sources(t, func(*testing.T) *SourceHarness {
		return &SourceHarness{
			System: "schedule", Options: []byte(`{"cron":"@every 1s"}`),
			Offer: func(ctx context.Context, _ *testing.T, r *SourceRun, _ int) bool { return r.Await(ctx) },
		}
	})
}
