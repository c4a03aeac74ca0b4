package cluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/tools/portforward"
	"k8s.io/client-go/transport/spdy"
)

var listAll metav1.ListOptions

// Dialer connects to one port of a Service, from this machine. On the local cluster that is the Service's cluster IP; elsewhere each
// connection is forwarded to one of its ready pods through the API server.
type Dialer struct {
	cluster   *Cluster
	namespace string
	service   string
	port      int32
}

// Dialer of a Service's port.
func (c *Cluster) Dialer(namespace, service string, port int32) *Dialer {
	return &Dialer{cluster: c, namespace: namespace, service: service, port: port}
}

// Dial the Service. The arguments after the context are ignored: they are there for http.Transport.
func (d *Dialer) Dial(ctx context.Context, _, _ string) (net.Conn, error) {
	service, err := d.cluster.Clientset.CoreV1().Services(d.namespace).Get(ctx, d.service, metav1.GetOptions{})
	if err != nil {
		return nil, err
	}
	if !d.cluster.Local {
		return d.cluster.forward(ctx, service, d.port)
	}
	host := service.Spec.ClusterIP
	if host == corev1.ClusterIPNone || host == "" {
		return nil, fmt.Errorf("service %s/%s has no cluster IP", d.namespace, d.service)
	}
	return (&net.Dialer{Timeout: 5 * time.Second}).DialContext(ctx, "tcp", net.JoinHostPort(host, strconv.Itoa(int(d.port))))
}

// HTTPClient of the Service: requests to any host go to it.
func (d *Dialer) HTTPClient(timeout time.Duration) *http.Client {
	return &http.Client{
		Timeout: timeout,
		Transport: &http.Transport{
			DialContext: d.Dial, MaxIdleConns: 64, MaxIdleConnsPerHost: 64, IdleConnTimeout: 30 * time.Second,
		},
	}
}

func (c *Cluster) forward(ctx context.Context, service *corev1.Service, port int32) (net.Conn, error) {
	pods, err := c.Clientset.CoreV1().Pods(service.Namespace).List(ctx, metav1.ListOptions{LabelSelector: labels.SelectorFromSet(service.Spec.Selector).String()})
	if err != nil {
		return nil, err
	}
	for i := range pods.Items {
		pod := &pods.Items[i]
		target, ok := targetPort(service, pod, port)
		if ok && podReady(pod) {
			return c.forwardPod(pod, target)
		}
	}
	return nil, fmt.Errorf("service %s/%s has no ready pod", service.Namespace, service.Name)
}

// forwardPod opens one connection to a pod, over a stream connection of its own: where several share one, an error of one ends them all.
func (c *Cluster) forwardPod(pod *corev1.Pod, port int32) (net.Conn, error) {
	roundTripper, upgrader, err := spdy.RoundTripperFor(c.REST)
	if err != nil {
		return nil, err
	}
	url := c.Clientset.CoreV1().RESTClient().Post().Resource("pods").Namespace(pod.Namespace).Name(pod.Name).SubResource("portforward").URL()
	dialer := spdy.NewDialer(upgrader, &http.Client{Transport: roundTripper}, http.MethodPost, url)
	streams, _, err := dialer.Dial(portforward.PortForwardProtocolV1Name)
	if err != nil {
		return nil, fmt.Errorf("port-forward to %s/%s: %w", pod.Namespace, pod.Name, err)
	}
	headers := http.Header{}
	headers.Set(corev1.PortHeader, strconv.Itoa(int(port)))
	headers.Set(corev1.PortForwardRequestIDHeader, "0")
	headers.Set(corev1.StreamType, corev1.StreamTypeError)
	failure, err := streams.CreateStream(headers)
	if err != nil {
		return nil, errors.Join(err, streams.Close())
	}
	_ = failure.Close() // nothing is written to it
	headers.Set(corev1.StreamType, corev1.StreamTypeData)
	data, err := streams.CreateStream(headers)
	if err != nil {
		return nil, errors.Join(err, streams.Close())
	}
	// a pipe has deadlines, which streams lack
	ours, theirs := net.Pipe()
	go func() {
		_, _ = io.Copy(data, theirs)
		_ = data.Close()
	}()
	go func() {
		_, _ = io.Copy(theirs, data)
		_ = theirs.Close()
		_ = streams.Close()
	}()
	return ours, nil
}

func podReady(pod *corev1.Pod) bool {
	for _, condition := range pod.Status.Conditions {
		if condition.Type == corev1.PodReady {
			return condition.Status == corev1.ConditionTrue && pod.DeletionTimestamp == nil
		}
	}
	return false
}

func targetPort(service *corev1.Service, pod *corev1.Pod, port int32) (int32, bool) {
	for _, p := range service.Spec.Ports {
		if p.Port != port {
			continue
		}
		if p.TargetPort.IntVal != 0 {
			return p.TargetPort.IntVal, true
		}
		for _, container := range pod.Spec.Containers {
			for _, named := range container.Ports {
				if named.Name == p.TargetPort.StrVal {
					return named.ContainerPort, true
				}
			}
		}
		return port, p.TargetPort.StrVal == ""
	}
	return 0, false
}
