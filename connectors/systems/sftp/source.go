package sftp

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path"

	"github.com/metip/metip/connectors/sdk"
	"github.com/metip/metip/connectors/systems/internal/folder"
)

// sourceOptions are the JSON of the API's SFTPSource.
type sourceOptions struct {
	Connection connectionOptions `json:"connection"`
	Base       string            `json:"base"`
	folder.SourceOptions
}

// source takes in the files of a folder.
type source struct {
	remote *remote
	intake *folder.Intake
}

// NewSource makes a source of the JSON of the API's SFTPSource.
func NewSource(rt sdk.Runtime, raw json.RawMessage) (sdk.Source, error) {
	var o sourceOptions
	if err := sdk.DecodeOptions(raw, &o); err != nil {
		return nil, err
	}
	if rt.Config.Source == nil {
		return nil, errors.New("the configuration has no source")
	}
	r, err := newRemote(rt, o.Connection)
	if err != nil {
		return nil, err
	}
	base, err := baseOf(o.Base)
	if err != nil {
		return nil, err
	}
	to, err := o.Options(rt.Config)
	if err != nil {
		return nil, err
	}
	if to.MaxFile > maxWhole {
		return nil, fmt.Errorf("records: whole files of SFTP have at most %d bytes", maxWhole)
	}
	to.Endpoint = r.endpoint + path.Join("/", base, to.Folder)
	if err := to.Check(); err != nil {
		return nil, err
	}
	return &source{r, folder.New(tree{r, base}, to, rt.Log)}, nil
}

// maxWhole is the largest file that becomes one message: what the bus carries.
const maxWhole = 8 << 20

// baseOf paths: a folder of the server's, or where the user logs in.
func baseOf(text string) (string, error) {
	if text == "" {
		return ".", nil
	}
	if path.Clean(text) != text {
		return "", fmt.Errorf("base %q is no path: write it as /data/exchange, or exchange below the user's own folder", text)
	}
	return text, nil
}

// Run implements sdk.Source. Nobody tells of new files: the folder is looked at again and again.
func (s *source) Run(ctx context.Context, bus sdk.Publisher, state sdk.Reporter) error {
	s.remote.onLost = state.System // while something is published nobody would notice
	defer s.remote.close()
	return s.intake.Run(ctx, bus, state)
}
